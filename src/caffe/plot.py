"""Training curves: collected from a run or read from log files, drawn with matplotlib.

runs = [read_log("train.log")]
draw(runs, "curves.png")
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caffe.errors import FileError, did_you_mean, require_extra

__all__ = ["Curves", "Series", "check_output", "draw", "read_log"]

_LIMIT = 4000  # points a series keeps; more than a picture shows


@dataclass
class Series:
    """Values over iterations. Only means of neighbours are kept once there are many: the picture stays the same."""

    points: list[tuple[float, float]] = field(default_factory=list)
    stride: int = 1
    _pending: list[tuple[float, float]] = field(default_factory=list)

    def add(self, iteration: float, value: float) -> None:
        """Append a value; one at an earlier iteration (a resumed run) replaces what stood from there on."""
        last = self._pending or self.points
        if last and iteration <= last[-1][0]:
            self._pending = []
            self.points = [point for point in self.points if point[0] < iteration]
        self._pending.append((iteration, value))
        if len(self._pending) >= self.stride:
            self.points.append(_mean(self._pending))
            self._pending = []
        if len(self.points) >= _LIMIT:
            self.points = [_mean(self.points[i : i + 2]) for i in range(0, len(self.points), 2)]
            self.stride *= 2

    @property
    def columns(self) -> tuple[list[float], list[float]]:
        """Iterations and values."""
        return [x for x, _ in self.points], [y for _, y in self.points]

    def smoothed(self, logarithmic: bool = False) -> tuple[list[float], list[float]]:
        """Iterations and the mean of each value's neighbourhood, a twenty-fifth of the run to either side.

        For a logarithmic axis the geometric mean, which stays in the middle of what is drawn there.
        """
        finite = [point for point in self.points if math.isfinite(point[1])]
        xs, ys = [x for x, _ in finite], [math.log(y) if logarithmic else y for _, y in finite]
        reach = len(ys) // 25
        totals = [0.0, *itertools.accumulate(ys)]
        means = []
        for i in range(len(ys)):
            near = max(reach // 6, min(reach, i, len(ys) - 1 - i))  # less towards the ends, where slopes would shift
            first, end = max(0, i - near), min(len(ys), i + near + 1)
            mean = (totals[end] - totals[first]) / (end - first)
            means.append(math.exp(mean) if logarithmic else mean)
        return xs, means

    @property
    def first_not_finite(self) -> float | None:
        """The iteration from which values are NaN or infinite, if there is one."""
        return next((x for x, y in self.points if not math.isfinite(y)), None)


@dataclass
class Curves:
    """The curves of one run: `name` tells it from others, `net` is the name of the net it trains."""

    name: str
    net: str = ""
    loss: Series = field(default_factory=Series)
    rate: Series = field(default_factory=Series)
    test_loss: dict[str, Series] = field(default_factory=dict)
    scores: dict[str, Series] = field(default_factory=dict)

    def add_test(self, net: int, output: str, iteration: int, value: float, is_loss: bool) -> None:
        """A test result: an output that counts in the net's loss stands beside the training loss."""
        name = f"{output} (test net {net})" if net else output
        target = self.test_loss if is_loss else self.scores
        target.setdefault(name, Series()).add(iteration, value)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not (self.loss.points or self.rate.points or self.test_loss or self.scores)


_NUMBER = r"([-+]?(?:[\d.]+(?:[eE][-+]?\d+)?|nan|inf))"
_LINES = {
    "solving": re.compile(r"\] Solving (\S.*)"),
    "loss": re.compile(rf"\bIteration (\d+)(?: \([^)]*\))?, loss = {_NUMBER}"),
    "rate": re.compile(rf"\bIteration (\d+), lr = {_NUMBER}"),
    "testing": re.compile(r"\bIteration (\d+), Testing net(?: \(#(\d+)\))?"),
    "output": re.compile(rf"\bTest net output #\d+: (.+?) = {_NUMBER}(\s+\(\*)?"),
    "score": re.compile(rf"\bTest score #(\d+): {_NUMBER}"),
}


def read_log(path: str | Path) -> Curves:
    """The curves that a log of `caffe train` tells, of BVLC Caffe (2013 to 1.0), of its forks or of ours.

    Raises FileError where the file cannot be read or holds no line of training.
    """
    curves = Curves(Path(path).stem)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            _Reader(curves).read(file)
    except OSError as error:
        raise FileError(f"cannot read the log {path}: {error.strerror}") from error
    if curves.empty:
        raise FileError(f"{path} holds no line of a training run; expected a log of `caffe train`")
    return curves


class _Reader:
    """Follows a log line by line: test results belong to the last line that announced a test."""

    def __init__(self, curves: Curves) -> None:
        self.curves = curves
        self.iteration = self.net = 0
        self.seen: dict[str, int] = {}

    def read(self, lines: Any) -> None:
        for line in lines:
            if not any(word in line for word in ("Iteration", "Test ", "Solving ")):
                continue
            for kind, pattern in _LINES.items():
                if match := pattern.search(line):
                    getattr(self, kind)(*match.groups())
                    break

    def solving(self, net: str) -> None:
        self.curves.net = net.strip()

    def loss(self, iteration: str, value: str) -> None:
        self.curves.loss.add(int(iteration), float(value))

    def rate(self, iteration: str, value: str) -> None:
        self.curves.rate.add(int(iteration), float(value))

    def testing(self, iteration: str, net: str | None) -> None:
        self.iteration, self.net, self.seen = int(iteration), int(net or 0), {}

    def output(self, name: str, value: str, weighted: str | None) -> None:
        count = self.seen[name] = self.seen.get(name, 0) + 1
        label = f"{name}[{count - 1}]" if count > 1 else name  # a vector is printed as lines of one name
        self.curves.add_test(self.net, label, self.iteration, float(value), weighted is not None)

    def score(self, index: str, value: str) -> None:
        self.curves.add_test(self.net, f"score {index}", self.iteration, float(value), False)


def check_output(path: str | Path) -> None:
    """Raise an error, before any work, where a picture cannot be written: matplotlib, format or folder missing."""
    bases: Any = require_extra("matplotlib.backend_bases", "plot", "drawing curves")
    formats = sorted(bases.FigureCanvasBase.filetypes)
    suffix = Path(path).suffix.lstrip(".").lower()
    if suffix not in formats:
        raise FileError(
            f'cannot draw into "{path}": "{suffix}" is no picture format{did_you_mean(suffix, formats)} '
            f"(formats: {', '.join(formats)})"
        )
    if not os.path.isdir(Path(path).absolute().parent):
        raise FileError(f'cannot draw into "{path}": there is no folder {Path(path).parent}')


def draw(runs: Sequence[Curves], path: str | Path) -> None:
    """Draw the curves of one or more runs: losses, below them test scores, below them learning rates.

    The file's name gives its format. Raises MissingExtra without matplotlib, FileError where it cannot be written.
    """
    check_output(path)
    from caffe.pictures import curves as _curves
    from caffe.proto import files

    with files.atomic(path) as file:
        _curves.figure(runs).savefig(file, format=Path(path).suffix.lstrip(".").lower(), dpi=150)


def _mean(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)
