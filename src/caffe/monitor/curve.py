"""One curve: values over iterations and seconds in typed arrays, and their reduction for a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Arrays", "Curve", "Window", "speed", "window"]


class Arrays(NamedTuple):
    """Iterations (int64, ascending), values (float32) and seconds since the start of the run (float64), all (N,)."""

    x: np.ndarray
    y: np.ndarray
    seconds: np.ndarray


class Window(NamedTuple):
    """For each column of a picture the minimum, maximum and mean value, (columns,) each; NaN for empty columns."""

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray


class Curve:
    """Values that are appended one by one and read as arrays.

    `arrays` is replaced but never modified, so other threads can read it. `last` is the iteration added last, initially
    -1.
    """

    def __init__(self, arrays: Arrays | None = None) -> None:
        self.arrays = arrays or Arrays(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.float64))
        self._memory = self.arrays
        self.last = int(self.arrays.x[-1]) if len(self.arrays.x) else -1
        self._x: list[int] = []
        self._y: list[float] = []
        self._seconds: list[float] = []

    def add(self, x: int, y: float, seconds: float) -> None:
        """Append a value. If its iteration is not larger than the last one (a resumed run), it replaces the values from
        there on.
        """
        if x <= self.last:
            self.flush()
            self._cut(x)
        self.last = x
        self._x.append(x)
        self._y.append(y)
        self._seconds.append(seconds)

    def extend(self, x: np.ndarray, y: np.ndarray, seconds: np.ndarray) -> None:
        """Append values, (N,) each, as `add` does one by one."""
        self.flush()
        begins = np.flatnonzero(x[1:] <= x[:-1]) + 1
        for begin, end in zip([0, *begins.tolist()], [*begins.tolist(), len(x)], strict=True):
            if begin < end:
                if x[begin] <= self.last:
                    self._cut(int(x[begin]))
                self._append(x[begin:end], y[begin:end], seconds[begin:end])
                self.last = int(x[end - 1])

    def flush(self) -> None:
        """Move appended values to `arrays`."""
        if self._x:
            self._append(self._x, self._y, self._seconds)
            self._x, self._y, self._seconds = [], [], []

    def _append(self, *columns: Sequence[float] | np.ndarray) -> None:
        count = len(self.arrays.x)
        total = count + len(columns[0])
        if total > len(self._memory.x):
            room = max(256, total + total // 4)
            self._memory = Arrays(*(np.concatenate([old, np.empty(room - count, old.dtype)]) for old in self.arrays))
        for memory, new in zip(self._memory, columns, strict=True):
            with np.errstate(over="ignore"):  # a loss beyond the range of float32 becomes infinite
                memory[count:total] = new
        begin = self.arrays.seconds[-1] if count else -np.inf
        seconds = self._memory.seconds[count:total]
        np.fmax(np.maximum.accumulate(seconds), begin, out=seconds)
        self.arrays = Arrays(*(memory[:total] for memory in self._memory))

    def _cut(self, x: int) -> None:
        count = int(np.searchsorted(self.arrays.x, x))
        self.arrays = self._memory = Arrays(*(array[:count].copy() for array in self.arrays))


def window(arrays: Arrays, axis: str, low: float, width: float, columns: int) -> Window:
    """Return minimum, maximum and mean in each of `columns` columns of `width`, starting at `low`.

    `axis` is "iterations" or "seconds". Values that are not finite are ignored. If the curve crosses the picture's edge
    between two points, the column at the edge gets the linearly interpolated value.
    """
    at = arrays.x if axis == "iterations" else arrays.seconds
    bounds = np.searchsorted(at, low + width * np.arange(columns + 1))
    filled = bounds[1:] > bounds[:-1]
    result = Window(*(np.full(columns, np.nan, np.float32) for _ in range(3)))
    first, last = int(bounds[0]), int(bounds[-1])
    if last > first:
        values = arrays.y[first:last]
        begin = bounds[:-1][filled] - first
        counts = (bounds[1:] - bounds[:-1])[filled].astype(np.float64)
        finite = np.isfinite(values)
        if not finite.all():
            counts = np.add.reduceat(finite, begin, dtype=np.float64)
            values = np.where(finite, values, np.nan)
        result.low[filled] = np.fmin.reduceat(values, begin)
        result.high[filled] = np.fmax.reduceat(values, begin)
        with np.errstate(invalid="ignore", divide="ignore"):
            result.mean[filled] = np.add.reduceat(np.where(finite, values, 0), begin, dtype=np.float64) / counts
    for column, index in ((0, first), (columns - 1, last)):
        if not filled[column] and 0 < index < len(at):
            edge = low + width * (column + 0.5)
            value = np.interp(edge, at[index - 1 : index + 1], arrays.y[index - 1 : index + 1])
            for array in result:
                array[column] = value
    return result


def speed(arrays: Arrays, points: int = 500) -> Arrays:
    """Return iterations per second between points of a curve, for at most about `points` points."""
    stride = max(1, len(arrays.x) // points)
    x, seconds = arrays.x[::stride], arrays.seconds[::stride]
    spans = np.diff(seconds)
    good = spans > 1e-6
    rates = (np.diff(x)[good] / spans[good]).astype(np.float32)
    return Arrays(x[1:][good], rates, seconds[1:][good])
