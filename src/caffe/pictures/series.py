"""The curves of a training run, as numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Curves", "Series"]

_LIMIT = 4000  # points kept per series; more than a picture shows


@dataclass
class Series:
    """Values over iterations.

    If there are many, neighbouring values are averaged, which does not change the picture.
    """

    points: list[tuple[float, float]] = field(default_factory=list)
    stride: int = 1
    _pending: list[tuple[float, float]] = field(default_factory=list)

    def add(self, iteration: float, value: float) -> None:
        """Append a value. If its iteration is not larger than the last one (a resumed run), it replaces the values from
        there on.
        """
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
        """Return iterations and values."""
        return [x for x, _ in self.points], [y for _, y in self.points]

    def smoothed(self, logarithmic: bool = False) -> tuple[list[float], list[float]]:
        """Return iterations and the moving average over a twenty-fifth of the run to either side.

        For a logarithmic axis this is the geometric mean, which lies in the middle of the drawn points.
        """
        finite = [point for point in self.points if math.isfinite(point[1])]
        xs, ys = [x for x, _ in finite], [math.log(y) if logarithmic else y for _, y in finite]
        reach = len(ys) // 25
        totals = [0.0, *itertools.accumulate(ys)]
        means = []
        for i in range(len(ys)):
            near = max(reach // 6, min(reach, i, len(ys) - 1 - i))  # less at the ends: else slopes shift
            first, end = max(0, i - near), min(len(ys), i + near + 1)
            mean = (totals[end] - totals[first]) / (end - first)
            means.append(math.exp(mean) if logarithmic else mean)
        return xs, means

    @property
    def first_not_finite(self) -> float | None:
        """Return the iteration from which values are NaN or infinite, or None."""
        return next((x for x, y in self.points if not math.isfinite(y)), None)


@dataclass
class Curves:
    """The curves of one run. `name` identifies it, `net` is the name of its net."""

    name: str
    net: str = ""
    loss: Series = field(default_factory=Series)
    rate: Series = field(default_factory=Series)
    test_loss: dict[str, Series] = field(default_factory=dict)
    scores: dict[str, Series] = field(default_factory=dict)

    def add_test(self, net: int, output: str, iteration: int, value: float, is_loss: bool) -> None:
        """Add a test result. An output that contributes to the net's loss is drawn beside the training loss."""
        name = f"{output} (test net {net})" if net else output
        target = self.test_loss if is_loss else self.scores
        target.setdefault(name, Series()).add(iteration, value)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not (self.loss.points or self.rate.points or self.test_loss or self.scores)


def _mean(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)
