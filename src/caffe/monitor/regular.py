"""The regular lines of a log, which repeat with every displayed iteration, read many at a time with NumPy.

A long log consists of lines such as

    I1129 10:20:30.123456  4242 solver.cpp:239] Iteration 100, loss = 0.25
    I1129 10:20:30.123460  4242 solver.cpp:258]     Train net output #0: loss = 0.25 (* 1 = 0.25 loss)
    I1129 10:20:30.123470  4242 sgd_solver.cpp:112] Iteration 100, lr = 0.01

All lines of one kind have the same text between the time and the first number. That text is the `Form` of the line.
The reader of single lines adds the forms that it meets. `Forms.read` then reads all lines of these forms in a piece of
the log at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["Form", "Forms", "Part", "Values"]

_WIDTH = 16  # bytes in which a number must lie
_MOST_FORMS = 32
_NUMERIC = np.zeros(256, bool)
_NUMERIC[list(b"0123456789+-.einfa")] = True
_TIME = b" 00:00:00.000000"
_DIGITS = np.array([byte == ord("0") for byte in _TIME])
_SECONDS = np.array([36000, 3600, 600, 60, 10, 1, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6])


class Form(NamedTuple):
    """What the lines of one kind have in common.

    `text` lies between the time and the first number. `tag` names the curve. `word` is the text before the value in a
    line whose first number is the iteration ("loss = "); it is empty in a line whose only number is the value.
    """

    text: bytes
    tag: str
    word: bytes = b""


class Values(NamedTuple):
    """Points of the curve `tag` in the order of the log: iterations, values and times of day in seconds, (N,) each."""

    tag: str
    x: np.ndarray
    y: np.ndarray
    times: np.ndarray


class Part(NamedTuple):
    """What `Forms.read` found in the first `size` bytes: the day, the points, and the lines that have no form."""

    day: str
    values: list[Values]
    rest: list[bytes]
    size: int


class Forms:
    """The forms of the lines of one log."""

    def __init__(self) -> None:
        self._forms: dict[tuple[bytes, bytes], Form] = {}

    def add(self, form: Form) -> bool:
        """Add a form; returns whether it is new. A form that was met with another tag is never used again."""
        key = form.text, form.word
        known = self._forms.get(key)
        if known is None:
            if len(self._forms) < _MOST_FORMS:
                self._forms[key] = form
            return key in self._forms
        if known.tag not in (form.tag, ""):
            self._forms[key] = form._replace(tag="")
        return False

    def read(self, data: bytes, iteration: int, stops: Callable[[bytes], bool]) -> Part | None:
        """Read the regular lines of one day from the beginning of `data`, which consists of whole lines.

        `iteration` is that of the last loss before `data`. Reading ends at a line with a loss: at the last one, or at
        the last one before a line that has no form and for which `stops` is true. Returns None where nothing precedes.
        """
        lines = _Lines(data)
        if not lines.day:
            return None
        found = [(form, *lines.take(form)) for form in self._forms.values() if form.tag]
        heads = np.concatenate([[-1], *(indices for form, indices, _, _ in found if form.tag == "loss")])
        steps = np.concatenate([[iteration], *(x for form, _, x, _ in found if form.tag == "loss")])
        order = np.argsort(heads)
        heads, steps = heads[order], steps[order]
        count = int(heads[np.searchsorted(heads, lines.count_before(stops), "right") - 1])
        if count <= 0:
            return None
        values = []
        for form, indices, x, y in found:
            if not form.word:
                x = steps[np.searchsorted(heads, indices) - 1]
            kept = indices < count
            if kept.any():
                values.append(Values(form.tag, x[kept], y[kept], lines.times(indices[kept])))
        return Part(lines.day.decode(), values, lines.rest(count), int(lines.ends[count - 1]) + 1)


class _Lines:
    """The lines of a piece of a log: where each begins and ends, and which ones have been taken."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
        self.starts = np.concatenate([[0], self.ends[:-1] + 1])
        day = data[:16].partition(b" ")[0]
        self.day = day if day[:1] == b"I" and day[1:].isdigit() and len(day) in (5, 9) else b""
        self._padded = data + b" " * _WIDTH  # so that a number at the end can be read with the full width
        self._head = len(self.day) + len(_TIME)
        self._taken = np.zeros(len(self.starts), bool)
        self._open = np.flatnonzero(self._dated()) if self.day else np.empty(0, np.int64)

    def take(self, form: Form) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the lines of a form that no earlier form matched: their indices, iterations and values."""
        indices = self._open[self._equal(self.starts[self._open] + self._head, form.text)]
        at = self.starts[indices] + self._head + len(form.text)
        good, x = np.ones(len(indices), bool), np.zeros(len(indices))
        if form.word:
            x, good = self._numbers(at, indices)
            at = self._value_places(indices, at)
            good &= self._equal(at - len(form.word), form.word) & (x >= 0) & (x < 2**53)
        y, finite = self._numbers(at, indices)
        good &= finite
        indices = indices[good]
        self._taken[indices] = True
        self._open = self._open[~self._taken[self._open]]
        return indices, x[good].astype(np.int64), y[good]

    def count_before(self, stops: Callable[[bytes], bool]) -> int:
        """Return the number of lines before the first line that was not matched and at which reading stops."""
        for index in np.flatnonzero(~self._taken).tolist():
            if stops(self._line(index)):
                return int(index)
        return len(self.starts)

    def rest(self, count: int) -> list[bytes]:
        """Return the lines among the first `count` that no form matched."""
        return [self._line(index) for index in np.flatnonzero(~self._taken[:count]).tolist()]

    def times(self, indices: np.ndarray) -> np.ndarray:
        """Return the times of day of lines in seconds, (N,)."""
        at = self.starts[indices] + len(self.day)
        digits = self._texts(at, len(_TIME)).view(np.uint8).reshape(-1, len(_TIME))[:, _DIGITS]
        result: np.ndarray = (digits - float(ord("0"))) @ _SECONDS
        return result

    def _dated(self) -> np.ndarray:
        """Return which lines begin with the day and a time."""
        same = self._equal(self.starts, self.day)
        stamps = self._texts(self.starts + len(self.day), len(_TIME)).view(np.uint8).reshape(-1, len(_TIME))
        for column, byte in enumerate(_TIME):
            here = stamps[:, column]
            same &= (here >= ord("0")) & (here <= ord("9")) if _DIGITS[column] else here == byte
        return same

    def _value_places(self, indices: np.ndarray, least: np.ndarray) -> np.ndarray:
        """Return the position after the last "=" of each line; `least` if there is none."""
        begins = np.maximum(self.ends[indices] - _WIDTH, least)
        equals = self._texts(begins, _WIDTH).view(np.uint8).reshape(-1, _WIDTH) == ord("=")
        last = _WIDTH - 1 - np.argmax(equals[:, ::-1], axis=1)
        return np.where(equals.any(axis=1), begins + last + 2, least)

    def _numbers(self, at: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Parse the numbers at these positions. Also returns which of them are valid and end before the line ends."""
        texts = self._texts(at, _WIDTH)
        table = texts.view(np.uint8).reshape(-1, _WIDTH)
        other = ~_NUMERIC[table]
        length = np.argmax(other, axis=1)
        good = other.any(axis=1) & (length > 0) & (at + length <= self.ends[indices])
        table *= (
            np.arange(_WIDTH, dtype=np.int8) < (length * good).astype(np.int8)[:, None]
        )  # the remaining bytes become zeros
        table[~good, 0] = ord("0")
        try:
            return texts.astype(np.float64), good
        except ValueError:
            values = [_number(text) for text in texts.tolist()]
            good &= np.array([value is not None for value in values], bool)
            return np.array([value or 0.0 for value in values], np.float64), good

    def _equal(self, at: np.ndarray, text: bytes) -> np.ndarray:
        return self._texts(at, len(text)) == text

    def _texts(self, at: np.ndarray, width: int) -> np.ndarray:
        """Copy `width` bytes from each of these positions to an array of strings, (N,)."""
        room = len(self._padded) - width
        places = np.clip(at, 0, max(room, 0))
        padded = self._padded if room >= 0 else self._padded.ljust(width)
        return np.ndarray((max(room, 0) + 1,), f"S{width}", padded, strides=(1,))[places]

    def _line(self, index: int) -> bytes:
        return self.data[self.starts[index] : self.ends[index]]


def _number(text: bytes) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
