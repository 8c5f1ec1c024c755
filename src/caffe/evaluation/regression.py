"""Compares the predictions of a regression with the correct numbers."""

from __future__ import annotations

import numpy as np

from caffe.errors import ArgumentError

__all__ = ["Regression"]


class Regression:
    """Compares predicted with correct numbers, both (rows,), in the units of the table."""

    def __init__(self, found: np.ndarray, right: np.ndarray, name: str = "") -> None:
        if found.shape != right.shape or found.ndim != 1 or not len(found):
            raise ArgumentError(f"predicted numbers {found.shape} and right ones {right.shape} do not match")
        self.found, self.right, self.name = found.astype(np.float64), right.astype(np.float64), name

    @property
    def mean_error(self) -> float:
        """The mean of |found - right|."""
        return float(np.abs(self.found - self.right).mean())

    @property
    def root_error(self) -> float:
        """The root of the mean squared error."""
        return float(np.sqrt(((self.found - self.right) ** 2).mean()))

    @property
    def explained(self) -> float:
        """R2: the share of explained variance. 0 is no better than predicting the mean; NaN without variance."""
        variance = self.right.var()
        return float(1 - self.root_error**2 / variance) if variance else float("nan")

    def text(self) -> str:
        """Return the report."""
        plain = float(np.abs(self.right - np.median(self.right)).mean())
        worst = int(np.abs(self.found - self.right).argmax())
        lines = [
            f"{self.name or 'the number'}: mean error {self.mean_error:.6g} "
            f"(if the median is always predicted: {plain:.6g})",
            f"root mean squared error {self.root_error:.6g}, explained variance R2 {self.explained:.4f}, "
            f"{len(self.right)} rows",
            f"worst: {self.found[worst]:.6g} for {self.right[worst]:.6g} (row {worst} of the validation rows)",
        ]
        return "\n".join(lines)
