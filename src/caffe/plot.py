"""Training curves: collected from a run or read from log files, drawn with matplotlib.

runs = [read_log("train.log")]
draw(runs, "curves.png")
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from caffe.errors import FileError, did_you_mean, require_extra
from caffe.pictures.series import Curves, Series
from caffe.proto.files import refuse_special

__all__ = ["NUMBER", "Curves", "LogReader", "Series", "check_output", "draw", "read_log"]

NUMBER = r"([-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|inf))"
"""A number as a log has it."""
_LINES = {
    "solving": re.compile(r"\] Solving (\S.*)"),
    "loss": re.compile(rf"\bIteration (\d{{1,18}})(?: \([^)]*\))?, loss = {NUMBER}"),
    "rate": re.compile(rf"\bIteration (\d{{1,18}}), lr = {NUMBER}"),
    "testing": re.compile(r"\bIteration (\d{1,18}), Testing net(?: \(#(\d{1,18})\))?"),
    "output": re.compile(rf"\bTest net output #\d+: (.+?) = {NUMBER}(\s+\(\*)?"),
    "score": re.compile(rf"\bTest score #(\d{{1,18}}): {NUMBER}"),
}


def read_log(path: str | Path) -> Curves:
    """Read the curves from a log of `caffe train`: of BVLC Caffe (2013 to 1.0), its forks or this package.

    Raises FileError where the file cannot be read or holds no line of training.
    """
    curves = Curves(Path(path).stem)
    try:
        refuse_special(path, pipes=True)
        with open(path, encoding="utf-8", errors="replace") as file:
            LogReader(curves).read(file)
    except OSError as error:
        raise FileError(f"cannot read the log {path}: {error.strerror}") from error
    if curves.empty:
        raise FileError(f"{path} contains no line of a training run; expected a log of `caffe train`")
    return curves


class LogReader:
    """Parses a log line by line. Test results belong to the last line that announced a test.

    Subclasses store the content of each kind of line.
    """

    def __init__(self, curves: Any = None) -> None:
        self.curves = curves
        self.iteration = self.net = 0
        self.seen: dict[str, int] = {}

    def read(self, lines: Iterable[str]) -> None:
        """Read the next lines."""
        for line in lines:
            if not any(word in line for word in ("Iteration", "Test ", "Solving ")):
                continue
            for kind, pattern in _LINES.items():
                if match := pattern.search(line):
                    getattr(self, kind)(*match.groups())
                    break

    def solving(self, net: str) -> None:
        """Called for the line that names the net."""
        self.curves.net = net.strip()

    def loss(self, iteration: str, value: str) -> None:
        """Called with the training loss of an iteration."""
        self.curves.loss.add(int(iteration), float(value))

    def rate(self, iteration: str, value: str) -> None:
        """Called with the learning rate of an iteration."""
        self.curves.rate.add(int(iteration), float(value))

    def testing(self, iteration: str, net: str | None) -> None:
        """Called when a test starts."""
        self.iteration, self.net, self.seen = int(iteration), int(net or 0), {}

    def output(self, name: str, value: str, weighted: str | None) -> None:
        """Called with a result of a test; `weighted` is given if it contributes to the loss."""
        count = self.seen[name] = self.seen.get(name, 0) + 1
        self.tested(
            f"{name}[{count - 1}]" if count > 1 else name, value, weighted is not None
        )  # a vector: several lines with the same name

    def tested(self, name: str, value: str, is_loss: bool) -> None:
        """Called with a result of a test that has its own name."""
        self.curves.add_test(self.net, name, self.iteration, float(value), is_loss)

    def score(self, index: str, value: str) -> None:
        """Called with a result of a test in the format of Caffe of 2013."""
        self.tested(f"score {index}", value, False)


def check_output(path: str | Path) -> None:
    """Raise an error before any work if the picture cannot be written: no matplotlib, wrong format, missing folder."""
    bases: Any = require_extra("matplotlib.backend_bases", "plot", "drawing curves")
    formats = sorted(bases.FigureCanvasBase.filetypes)
    suffix = Path(path).suffix.lstrip(".").lower()
    if suffix not in formats:
        raise FileError(
            f'cannot draw into "{path}": "{suffix}" is not a picture format{did_you_mean(suffix, formats)} '
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
