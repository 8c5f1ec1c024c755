"""The history of a run so far: losses in a fixed amount of memory, and the results of tests."""

from __future__ import annotations

import math
import statistics
from collections import deque

import numpy as np

__all__ = ["Course"]

_BINS, _FIRST, _RECENT = 256, 20, 100


class Course:
    """Stores the losses of all iterations as means of equal parts of the run, the first and last losses, and the
    outputs of test net 0.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first: list[float] = []
        self.recent: deque[float] = deque(maxlen=_RECENT)
        self.tests: list[dict[str, float]] = []
        self.swings = Swings()
        self._means: list[float] = []
        self._size, self._sum, self._held = 1, 0.0, 0

    def add(self, loss: float) -> None:
        """Add the loss of an iteration. NaN and infinite losses are ignored."""
        if not math.isfinite(loss):
            return
        self.count += 1
        if len(self.first) < _FIRST:
            self.first.append(loss)
            if len(self.first) == _FIRST:
                self.swings.begin(self.start, self.noise)
        self.recent.append(loss)
        self.swings.add(self.count, loss)
        self._sum, self._held = self._sum + loss, self._held + 1
        if self._held == self._size:
            self._means.append(self._sum / self._size)
            self._sum, self._held = 0.0, 0
            if len(self._means) == _BINS:
                self._means = [(a + b) / 2 for a, b in zip(self._means[::2], self._means[1::2], strict=True)]
                self._size *= 2

    @property
    def means(self) -> np.ndarray:
        """Return the mean losses of equal parts of the run, in order. The last few iterations can be missing."""
        return np.array(self._means)

    @property
    def start(self) -> float:
        """The loss at the start."""
        return statistics.median(self.first) if self.first else float("nan")

    @property
    def noise(self) -> float:
        """The standard deviation of the loss between batches at the start."""
        return float(np.std(self.first)) if self.first else 0.0

    def tested(self, word: str) -> np.ndarray:
        """Return the results of all tests in the first output whose name contains this word; empty if there is none."""
        name = next((name for test in self.tests for name in test if word in name.lower()), "")
        return np.array([test[name] for test in self.tests if name in test])


class Swings:
    """Counts how often the loss rises above its start after it had fallen.

    The loss is a running mean of about eight batches, because single batches vary a lot.
    """

    _LOW, _HIGH, _NOISE, _SPAN, _MEMORY = 0.7, 1.2, 2.5, 500, 0.125

    def __init__(self) -> None:
        self.low = self.high = float("nan")
        self.at: deque[int] = deque(maxlen=16)
        self._fallen, self._mean = False, 0.0

    def begin(self, start: float, noise: float) -> None:
        """Set the loss at the start and its noise."""
        if start > 0:
            self.low, self.high = self._LOW * start, max(self._HIGH * start, start + self._NOISE * noise)

    def add(self, iteration: int, loss: float) -> None:
        """Add the loss of an iteration."""
        self._mean = loss if iteration == 1 else self._mean + self._MEMORY * (loss - self._mean)
        if self._mean < self.low:
            self._fallen = True
        elif self._mean > self.high and self._fallen:
            self._fallen = False
            self.at.append(iteration)

    def lately(self, iteration: int) -> int:
        """Return the number of swings within the last 500 iterations."""
        return sum(iteration - each < self._SPAN for each in self.at)
