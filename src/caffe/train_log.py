"""Training logs as tables: a row for each iteration that the log reports, a column for each output of the net."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from caffe.errors import FileError, require_extra
from caffe.proto import files
from caffe.proto.files import refuse_special

__all__ = ["CHARTS", "Tables", "chart", "read", "write"]

Row = dict[str, float]

_STAMP = re.compile(r"[IWEF](\d{4}|\d{8}) (\d\d):(\d\d):(\d\d)\.(\d{6})")
_NUMBER = r"([-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|inf))"
_ITERATION = re.compile(r"Iteration (\d{1,18})")
_TEST_NET = re.compile(r"Testing net \(#(\d{1,18})\)")
_RATE = re.compile(rf"lr = {_NUMBER}")
_OUTPUT = re.compile(rf"(Train|Test) net output #\d+: (\S+) = {_NUMBER}")

CHARTS = (
    ("Test accuracy", "Iters", "accuracy"),
    ("Test accuracy", "Seconds", "accuracy"),
    ("Test loss", "Iters", "loss"),
    ("Test loss", "Seconds", "loss"),
    ("Train learning rate", "Iters", "LearningRate"),
    ("Train learning rate", "Seconds", "LearningRate"),
    ("Train loss", "Iters", "loss"),
    ("Train loss", "Seconds", "loss"),
)
"""The charts of Caffe's plot_training_log: which table and quantity, over what, and the beginning of the column."""


@dataclass
class Tables:
    """The rows of training and of testing. A row has NumIters, Seconds (since "Solving"), LearningRate and outputs.

    Each test net has its own rows; `nets` holds the number of the net for each row of `test`. If the log has no line
    "Solving", seconds are counted from its first line. In a log without times they are NaN.
    """

    train: list[Row] = field(default_factory=list)
    test: list[Row] = field(default_factory=list)
    nets: list[int] = field(default_factory=list)

    def add(self, kind: str, net: int, head: Row, name: str, value: float) -> None:
        """Put an output into the last row of its net, or into a new one that begins with `head`."""
        rows = self.train if kind == "Train" else self.test
        same_net = kind == "Train" or self.nets[-1:] == [net]
        if not rows or not same_net or rows[-1]["NumIters"] != head["NumIters"]:
            rows.append(head)
            if kind == "Test":
                self.nets.append(net)
        rows[-1][name] = value


def read(path: str | Path) -> Tables:
    """Read the tables of a log of `caffe train`, of BVLC Caffe or of this package. Raises FileError."""
    tables = Tables()
    lines = _lines(path)
    times = _times(lines)
    first = next((time for time in times if time is not None), None)
    start = now = None
    iteration, net, rate = -1, 0, float("nan")
    for line, time in zip(lines, times, strict=True):
        now = time or now
        if start is None and "Solving" in line:
            start = time
        if match := _ITERATION.search(line):
            iteration = int(match[1])
        if match := _TEST_NET.search(line):
            net = int(match[1])
        if iteration < 0:
            continue
        if match := _RATE.search(line):
            rate = float(match[1])
        if match := _OUTPUT.search(line):
            start = start or first
            seconds = (now - start).total_seconds() if now and start else float("nan")
            head = {"NumIters": iteration, "Seconds": seconds, "LearningRate": rate}
            tables.add(match[1], net, head, match[2], float(match[3]))
    for rows in (tables.train, tables.test):
        _fill_rates(rows)
    if not (tables.train or tables.test):
        raise FileError(f"{path} holds no outputs of a training run; expected a log of `caffe train`")
    return tables


def write(rows: Sequence[Row], path: str | Path, delimiter: str = ",") -> None:
    """Write rows as a table of text, with the column names in the first line; atomically."""
    import io

    heads = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, heads, delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with files.atomic(path) as file:
        file.write(stream.getvalue().encode())


def chart(number: int, paths: Sequence[str | Path], out: str | Path) -> None:
    """Draw chart `number` of `CHARTS` from these logs into the picture `out`."""
    figures: Any = require_extra("matplotlib.figure", "plot", "drawing charts")
    quantity, unit, column = CHARTS[number]
    page = figures.Figure(figsize=(8, 5), layout="constrained")
    axes = page.subplots()
    for path in paths:
        tables = read(path)
        curves = _curves(tables, quantity.startswith("Train"), column)
        if not curves:
            raise FileError(f'{path}: has no output whose name begins with "{column}" for the chart "{quantity}"')
        for name, rows in curves:
            points = [(row["NumIters" if unit == "Iters" else unit], row[name.partition(" ")[0]]) for row in rows]
            label = Path(path).name + (f": {name}" if len(curves) > 1 else "")
            axes.plot(*zip(*points, strict=True), marker="o" if len(points) < 60 else "", markersize=3, label=label)
    axes.set_title(f"{quantity} vs. {unit}")
    axes.set_xlabel(unit)
    axes.set_ylabel(quantity)
    axes.grid(alpha=0.25)
    axes.legend()
    with files.atomic(out) as file:
        page.savefig(file, format=Path(out).suffix.lstrip(".").lower(), dpi=150)


def _fill_rates(rows: Sequence[Row]) -> None:
    """Set missing rates at the start to the first known rate, because the log prints it after the first outputs."""
    known = next((index for index, row in enumerate(rows) if not math.isnan(row["LearningRate"])), 0)
    for row in rows[:known]:
        row["LearningRate"] = rows[known]["LearningRate"]


def _curves(tables: Tables, train: bool, column: str) -> list[tuple[str, list[Row]]]:
    """Return name and rows of each output whose name begins with `column`, with the test net's number in the name."""
    rows, nets = (tables.train, [0] * len(tables.train)) if train else (tables.test, tables.nets)
    found: dict[str, list[Row]] = {}
    for row, net in zip(rows, nets, strict=True):
        for name in row:
            if name.startswith(column):
                found.setdefault(f"{name} (test net {net})" if net else name, []).append(row)
    return list(found.items())


def _lines(path: str | Path) -> list[str]:
    try:
        refuse_special(path, pipes=True)
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read the log {path}: {files.reason(error)}") from error


def _times(lines: Sequence[str]) -> list[datetime | None]:
    """Return the time of each line, None for a line without a time.

    Lines without a year get an arbitrary first year. A month below the previous one begins the next year.
    """
    stamps = [_STAMP.match(line) for line in lines]
    for year in (2001, 2000, 2003, 2002):  # 29 February does not occur, or occurs in the first, second or third year
        with suppress(ValueError):
            return _dated(stamps, year)
    return [None] * len(lines)


def _dated(stamps: Sequence[re.Match[str] | None], year: int) -> list[datetime | None]:
    """Return the times of the stamps if the first is in this year; raises ValueError for a day that does not exist."""
    times: list[datetime | None] = []
    month = 0
    for stamp in stamps:
        if stamp is None:
            times.append(None)
            continue
        date = stamp[1]
        if len(date) == 4:
            year += int(date[:2]) < month
            month = int(date[:2])
            date = f"{year}{date}"
        times.append(datetime.strptime(f"{date} {':'.join(stamp.groups()[1:])}", "%Y%m%d %H:%M:%S:%f"))
    return times
