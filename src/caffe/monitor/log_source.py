"""Reads a growing training log: curves, the solver's fields, the net, warnings and findings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Any

from caffe.monitor.facts import Facts
from caffe.monitor.regular import Form, Forms, Part
from caffe.monitor.source import Source
from caffe.plot import NUMBER, LogReader

__all__ = ["LogSource"]

_STAMP = re.compile(r"[IWEF](?:\d{4})?(\d\d)(\d\d) (\d\d):(\d\d):(\d\d\.\d+)")
_STAMPED = re.compile(r"[IWEF]\d{4,8} \d\d:")
_TRAIN = re.compile(rf"Train net output #\d+: (.+?) = {NUMBER}")
_USUAL = re.compile(
    r"(I(?:\d{4})?\d{4} \d\d:\d\d:\d\d)(\.\d+) +\d+ [^\]]+\] +(?:"
    rf"Iteration (\d{{1,18}})(?: \([^)]*\))?, (loss|lr) = {NUMBER}|Train net output #\d+: (\S+) = {NUMBER})"
)
"""The most frequent lines of a long log, matched by a single expression for speed."""
_FINDING = re.compile(r"watch\] (\S+) at iteration (\d{1,18}): (.*)")
_LAYER = re.compile(r"\] (\S+) -> (\S+?)( \(in-place\))?$")
_SHAPE = re.compile(r"Top shape: ((?:\d{1,18} )*)\(", re.ASCII)
_BLOCKS = {"Initializing solver from parameters:": "solver", "Initializing net from parameters:": "net"}
_FIRST_DAY = date(2000, 1, 1)  # the assumed year of the first line
_FIRST = 16 << 10  # bytes of a piece that are read line by line before its regular lines are looked for again
_LONGEST = 1 << 20  # largest number of bytes without a line end in a log


class LogSource(Source):
    """Reads a log of `caffe train`, of BVLC Caffe, its forks or this package."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.facts = Facts()
        self._reader = _Lines(self)

    def use(self, data: bytes) -> int:
        """Read the complete lines in `data`; returns the number of bytes used."""
        end = data.rfind(b"\n") + 1
        if not end:
            if len(data) < _LONGEST:
                return 0
            end = len(data)
        self._reader.read_bytes(data[:end])
        if b"\0" in data[:4096] and not self.curves:
            self.tail.message = f"{self.path.name} is binary; expected the text that `caffe train` logs"
        elif not self.curves and not self.facts.solver:
            self.tail.message = f"{self.path.name} contains no line of a training run yet"
        elif "line of a training run" in self.tail.message:
            self.tail.message = ""
        return end

    def restarted(self) -> None:
        """The file was replaced. Its first iteration decides whether its run continues the old one."""
        self._reader.before = self._reader.before or self.facts
        self.facts = Facts()

    def state(self) -> dict[str, Any]:
        """See the base class."""
        return {**super().state(), "reader": self._reader.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """See the base class."""
        super().restore(state)
        self._reader.restore(state["reader"])


class _Lines(LogReader):
    """Adds the content of lines to the curves and facts of a source."""

    def __init__(self, source: LogSource) -> None:
        super().__init__()
        self.source = source
        self.before: Facts | None = None  # of the previous file, until the first iteration of this one
        self.start: float | None = None
        self.now = 0.0
        self._block = ""
        self._waiting: list[str] = []
        self._year, self._month = _FIRST_DAY.year, 0
        self._days: dict[tuple[str, str], int] = {}
        self._outputs: dict[str, int] = {}
        self._second, self._whole = "", 0.0
        self._forms = Forms()

    def state(self) -> dict[str, Any]:
        """Return the state of the reader that a later process needs."""
        return {
            "iteration": self.iteration,
            "net": self.net,
            "seen": self.seen,
            "start": self.start,
            "now": self.now,
            "block": self._block,
            "date": [self._year, self._month],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a result of `state`."""
        self.iteration, self.net, self.seen = state["iteration"], state["net"], state["seen"]
        self.start, self.now, self._block = state["start"], state["now"], state["block"]
        self._year, self._month = state["date"]

    def read_bytes(self, data: bytes) -> None:
        """Read whole lines: the regular ones many at a time, the others one by one."""
        size = _FIRST
        while data:
            part = self._regular(data)
            if part is not None:
                data = data[part.size :]
            end = data.find(b"\n", size) + 1 or len(data)
            self.read(data[:end].replace(b"\0", b"").decode("utf-8", "replace").splitlines())
            data = data[end:]
            size *= 2

    def _regular(self, data: bytes) -> Part | None:
        """Read the regular lines at the beginning of `data` and the lines between them."""
        loss = self.source.curves.get("loss")
        if self.before is not None or self.start is None or loss is None or len(data) < _FIRST:
            return None
        part = self._forms.read(data, loss.last, _trains)
        if part is not None:
            self._time(f"{part.day} 00:00:00.0")
            for tag, x, y, times in part.values:
                self.source.curve(tag).extend(x, y, self.now + times)
            self.read(line.decode("utf-8", "replace") for line in part.rest)
        return part

    def read(self, lines: Iterable[str]) -> None:
        """Read a piece, including the lines around those of training."""
        usual, add = _USUAL.match, self._add
        for line in lines:
            match = usual(line)
            if match is not None:
                self._stamp(match[1], match[2])
                if match[3] is None:
                    self._learn(line, match, 7, self._trained(match[6], float(match[7])))
                elif match[4] == "lr":
                    add("rate", int(match[3]), float(match[5]))
                    self._learn(line, match, 3, "rate", b"lr = ")
                else:
                    self._outputs = {}
                    add("loss", int(match[3]), float(match[5]))
                    self._learn(line, match, 3, "loss", b"loss = ")
            elif line[:1] in ("W", "E", "F") and _STAMPED.match(line):
                self._other(line)  # for every kind of line
            elif "Iteration " in line or "net output #" in line or "Test score" in line:
                self._time(line)
                if match := _TRAIN.search(line):
                    self._trained(match[1], float(match[2]))
                else:
                    super().read((line,))
            else:
                self._other(line)

    def _learn(self, line: str, match: re.Match[str], number: int, tag: str, word: bytes = b"") -> None:
        """Add the form of a line, whose text ends where group `number` of `_USUAL` begins."""
        if tag:
            self._forms.add(Form(line[match.end(2) : match.start(number)].encode(), tag, word))

    def _stamp(self, second: str, fraction: str) -> None:
        """Parse the time of a line from its stamp up to the second and the rest. The last second is cached."""
        if second != self._second or self.start is None:
            self._time(f"{second}.0")
            self._second, self._whole = second, self.now
        self.now = self._whole + float(fraction)

    def _time(self, line: str) -> None:
        self._second = ""
        match = _STAMP.match(line)
        if match is None:
            return
        month, day, hour, minute, second = match.groups()
        number = self._days.get((month, day))
        if number is None:
            self._year += int(month) < self._month
            self._month = int(month)
            number = self._days[month, day] = _ordinal(self._year, int(month), int(day))
        now = number * 86400.0 + int(hour) * 3600 + int(minute) * 60 + float(second)
        self.start = now if self.start is None else self.start
        self.now = now - self.start

    def _other(self, line: str) -> None:
        facts = self.source.facts
        if not _STAMPED.match(line):
            if self._block:
                setattr(facts, self._block, getattr(facts, self._block) + line + "\n")
            return
        self._block = ""
        for words, handle in _OTHER.items():
            if words in line:
                handle(self, line)
                break
        if line[0] in "WEF":
            self._warned(line)

    def _solving(self, line: str) -> None:
        self._time(line)
        super().read((line,))

    def _begin(self, line: str) -> None:
        """A solver's or a net's text starts. Only the first net, which is trained, is kept."""
        facts = self.source.facts
        kind = next(kind for words, kind in _BLOCKS.items() if words in line)
        if kind == "solver":
            facts.solver = facts.net = facts.ended = ""
            facts.shapes = {}
        if not getattr(facts, kind):
            self._block = kind

    def _top(self, line: str) -> None:
        if match := _LAYER.search(line):
            self._waiting.append(match[2])

    def _shape(self, line: str) -> None:
        match = _SHAPE.search(line)
        if match and self._waiting:
            self.source.facts.shapes.setdefault(self._waiting.pop(0), [int(size) for size in match[1].split()])

    def _layer(self, line: str) -> None:
        self._waiting = []

    def _done(self, line: str) -> None:
        if "stopped early" in line:
            self.source.facts.ended = "stopped"
        elif not self.source.facts.ended:
            self.source.facts.ended = "finished"

    def _warned(self, line: str) -> None:
        facts = self.source.facts
        text = line.partition("] ")[2] or line
        if match := _FINDING.search(line):
            facts.found({"code": match[1], "iteration": int(match[2]), "message": match[3], "severity": "warning"})
        else:
            facts.told({"W": "warning: ", "E": "error: ", "F": "fatal: "}[line[0]] + text)
        if line[0] == "F":
            facts.ended = "failed"

    # -- what the base finds in a line ---------------------------------------------------------------------------------

    def solving(self, net: str) -> None:
        """The net's name; a run starts or continues."""
        self.source.facts.net_name, self.source.facts.ended = net.strip(), ""

    def loss(self, iteration: str, value: str) -> None:
        """See the base class."""
        self._outputs = {}
        self._add("loss", int(iteration), float(value))

    def rate(self, iteration: str, value: str) -> None:
        """See the base class."""
        self._add("rate", int(iteration), float(value))

    def tested(self, name: str, value: str, is_loss: bool) -> None:
        """See the base class."""
        self._add(f"test{self.net or ''}/{name}", self.iteration, float(value))

    def _trained(self, name: str, value: float) -> str:
        """Add an output of the training net; returns the curve's tag, which is empty before the first loss."""
        count = self._outputs[name] = self._outputs.get(name, 0) + 1
        loss = self.source.curves.get("loss")
        if loss is None:
            return ""
        tag = f"train/{name}[{count - 1}]" if count > 1 else f"train/{name}"
        self._add(tag, loss.last, value)
        return tag

    def _add(self, tag: str, iteration: int, value: float) -> None:
        if self.before is not None:
            self._judge(self.before, iteration)
            self.before = None
        self.source.curve(tag).add(iteration, value, self.now)

    def _judge(self, before: Facts, iteration: int) -> None:
        """Discard the curves of the previous file, unless this file continues it (a rotated log)."""
        loss = self.source.curves.get("loss")
        if loss is not None and len(loss.arrays.x) and iteration > loss.arrays.x[0]:
            self.source.facts.follow(before)
            return
        self.source.clear()
        if self.start is not None:
            self.start += self.now
        self.now = 0.0


def _trains(line: bytes) -> bool:
    """Whether a line can add points to the curves of regular lines."""
    return b", loss = " in line or b", lr = " in line or b"Train net output #" in line


def _ordinal(year: int, month: int, day: int) -> int:
    """Return the day's ordinal. Lines contain no year, so 29 February can belong to a year without it."""
    try:
        return (date(year, month, day) - _FIRST_DAY).days
    except ValueError:
        return (date(year, 3, 1) - _FIRST_DAY).days if month == 2 else 0


_OTHER: dict[str, Callable[[_Lines, str], None]] = {
    **dict.fromkeys(_BLOCKS, _Lines._begin),
    "Creating Layer": _Lines._layer,
    " -> ": _Lines._top,
    "Top shape:": _Lines._shape,
    "Solving ": _Lines._solving,
    "Optimization Done": _Lines._done,
    "Optimization stopped early": _Lines._done,
}
