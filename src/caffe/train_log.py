"""Training logs as tables: a row for each iteration that the log reports, a column for each output of the net."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from caffe.errors import FileError, require_extra
from caffe.proto import files

__all__ = ["CHARTS", "Tables", "chart", "read", "write"]

Row = dict[str, float]

_STAMP = re.compile(r"[IWEF](\d{4}|\d{8}) (\d\d):(\d\d):(\d\d)\.(\d{6})")
_NUMBER = r"([-+]?(?:[\d.]+(?:[eE][-+]?\d+)?|nan|inf))"
_ITERATION = re.compile(r"Iteration (\d+)")
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
    """The rows of training and of testing. A row has NumIters, Seconds (since "Solving"), LearningRate and outputs."""

    train: list[Row] = field(default_factory=list)
    test: list[Row] = field(default_factory=list)


def read(path: str | Path) -> Tables:
    """The tables of a log of `caffe train`, the original's or ours. Raises FileError."""
    tables = Tables()
    start: datetime | None = None
    iteration, rate = -1, float("nan")
    for line in _lines(path):
        stamp = _time(line)
        if start is None and "Solving" in line:
            start = stamp
        if match := _ITERATION.search(line):
            iteration = int(match[1])
        if iteration < 0 or stamp is None or start is None:
            continue
        if match := _RATE.search(line):
            rate = float(match[1])
        if match := _OUTPUT.search(line):
            rows = tables.train if match[1] == "Train" else tables.test
            if not rows or rows[-1]["NumIters"] != iteration:
                seconds = (stamp - start).total_seconds()
                rows.append({"NumIters": iteration, "Seconds": seconds, "LearningRate": rate})
            rows[-1][match[2]] = float(match[3])
    for rows in (tables.train, tables.test):  # the first rate is printed after the first outputs
        if len(rows) > 1 and rows[0]["LearningRate"] != rows[0]["LearningRate"]:
            rows[0]["LearningRate"] = rows[1]["LearningRate"]
    if not (tables.train or tables.test):
        raise FileError(f"{path} holds no outputs of a training run; expected a log of `caffe train`")
    return tables


def write(rows: Sequence[Row], path: str | Path, delimiter: str = ",") -> None:
    """Write rows as a table of text with a line of heads; atomically."""
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
        rows = tables.train if quantity.startswith("Train") else tables.test
        names = [name for name in dict.fromkeys(n for row in rows for n in row) if name.startswith(column)]
        if not names:
            raise FileError(f'{path}: has no output whose name begins with "{column}" for the chart "{quantity}"')
        for name in names:
            points = [(row["NumIters" if unit == "Iters" else unit], row[name]) for row in rows if name in row]
            label = Path(path).name + (f": {name}" if len(names) > 1 else "")
            axes.plot(*zip(*points, strict=True), marker="o" if len(points) < 60 else "", markersize=3, label=label)
    axes.set_title(f"{quantity} vs. {unit}")
    axes.set_xlabel(unit)
    axes.set_ylabel(quantity)
    axes.grid(alpha=0.25)
    axes.legend()
    with files.atomic(out) as file:
        page.savefig(file, format=Path(out).suffix.lstrip(".").lower(), dpi=150)


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise FileError(f"cannot read the log {path}: {error.strerror}") from error


def _time(line: str) -> datetime | None:
    """When a log line was written; the year is made up where the line has none."""
    match = _STAMP.match(line)
    if match is None:
        return None
    date = match[1] if len(match[1]) == 8 else f"2000{match[1]}"
    return datetime.strptime(f"{date} {':'.join(match.groups()[1:])}", "%Y%m%d %H:%M:%S:%f")
