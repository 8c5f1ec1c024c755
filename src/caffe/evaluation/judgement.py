"""Compares the probabilities of a classifier with the correct labels."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caffe.errors import ArgumentError, require_extra
from caffe.proto import files
from caffe.reliability import Reliability

__all__ = ["Judgement", "wilson"]

_Z = 1.96


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a proportion, if `right` of `count` were correct.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    if not count:
        return 0.0, 1.0
    share = right / count
    middle = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2)) / (1 + _Z**2 / count)
    return max(0.0, middle - half), min(1.0, middle + half)


class Judgement:
    """Compares probabilities (items, classes) with labels (items).

    `names` are the class names; the default is the class indices. Raises ArgumentError for shapes that do not match.
    """

    def __init__(self, probabilities: np.ndarray, labels: np.ndarray, names: Sequence[str] = ()) -> None:
        if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
            raise ArgumentError(f"probabilities {probabilities.shape} and labels {labels.shape} do not match")
        self.probabilities, self.labels = probabilities, labels.astype(np.int64)
        self.classes = probabilities.shape[1]
        if names and len(names) != self.classes:
            raise ArgumentError(f"there are {len(names)} names and {self.classes} classes; give a name for each")
        self.names = list(names) or [str(number) for number in range(self.classes)]
        self.answers = probabilities.argmax(1)
        self.right = self.answers == self.labels

    @property
    def accuracy(self) -> float:
        """The fraction of items that are correct."""
        return float(self.right.mean())

    def top(self, count: int) -> float:
        """Return the fraction of items whose label is among the `count` most probable classes."""
        own = self.probabilities[np.arange(len(self.labels)), self.labels][:, None]
        return float(((self.probabilities > own).sum(1) < count).mean())

    @property
    def losses(self) -> np.ndarray:
        """-log of the probability of each label."""
        own = self.probabilities[np.arange(len(self.labels)), self.labels]
        return -np.log(np.maximum(own.astype(np.float64), 1e-30))

    @property
    def confusion(self) -> np.ndarray:
        """The number of items of class i (row) that were classified as j (column)."""
        pairs = self.labels * self.classes + self.answers
        return np.bincount(pairs, minlength=self.classes**2).reshape(self.classes, self.classes)

    @property
    def calibration_error(self) -> float:
        """The mean difference between confidence and accuracy (see `Reliability.error`)."""
        kept = Reliability()
        kept.add(self.probabilities, self.labels)
        return kept.error

    def worst(self, count: int) -> np.ndarray:
        """Return the indices of the items with the largest losses, largest first."""
        return np.argsort(-self.losses, kind="stable")[:count]

    def by_class(self) -> list[tuple[str, int, float, float, float]]:
        """Return name, items, recall, precision and F1 of each class; NaN for divisions by 0."""
        table = self.confusion
        rows = []
        for number, name in enumerate(self.names):
            hits, own, called = table[number, number], table[number].sum(), table[:, number].sum()
            recall, precision = hits / own if own else math.nan, hits / called if called else math.nan
            both = 2 * hits / (own + called) if own + called else math.nan
            rows.append((name, int(own), float(recall), float(precision), float(both)))
        return rows

    def text(self, most: int = 20) -> str:
        """Return the report. If there are more than `most` classes, those with the lowest recall are listed."""
        low, high = wilson(int(self.right.sum()), len(self.right))
        lines = [
            f"accuracy {self.accuracy:.4f} ({int(self.right.sum())} of {len(self.right)}; "
            f"95 % interval {low:.4f} to {high:.4f})"
        ]
        if self.classes > 5:
            lines.append(f"top-5 accuracy {self.top(5):.4f}")
        lines.append(f"mean loss {self.losses.mean():.4f}, calibration error {self.calibration_error:.4f}")
        rows = [row for row in self.by_class() if row[1] or not math.isnan(row[3])]
        if len(rows) > most:
            rows = sorted(rows, key=lambda row: row[2])[:most]
            lines.append(f"the {most} classes with the lowest recall:")
        width = max(5, *(len(row[0]) for row in rows))
        lines.append(f"{'class'.ljust(width)}  items  recall  precision  F1")
        for name, items, *shares in rows:
            cells = ["     -" if math.isnan(share) else f"{share:6.3f}" for share in shares]
            lines.append(f"{name.ljust(width)}  {items:5d}  {cells[0]}  {cells[1]:>9s}  {cells[2].strip()}")
        return "\n".join([*lines, *self._mixed_up()])

    def _mixed_up(self, most: int = 3) -> list[str]:
        """Return the pairs of classes that are confused most often."""
        table = self.confusion.copy()
        np.fill_diagonal(table, 0)
        order = np.argsort(-table, axis=None, kind="stable")[:most]
        pairs = [divmod(int(place), self.classes) for place in order if table.flat[place]]
        if not pairs:
            return []
        told = ", ".join(f"{self.names[a]} taken for {self.names[b]} ({table[a, b]})" for a, b in pairs)
        return [f"most confused: {told}"]

    def write_confusion(self, path: str | Path) -> None:
        """Write the confusion matrix as a table (.csv) or a picture (.png, .pdf, .svg)."""
        if Path(path).suffix.lower() == ".csv":
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(["is \\ called", *self.names])
            for name, row in zip(self.names, self.confusion.tolist(), strict=True):
                writer.writerow([name, *row])
            with files.atomic(path) as file:
                file.write(text.getvalue().encode())
            return
        self._draw_confusion(path)

    def _draw_confusion(self, path: str | Path) -> None:
        figures: Any = require_extra("matplotlib.figure", "plot", "drawing a confusion matrix")
        side = min(24.0, 3 + 0.4 * self.classes)
        page = figures.Figure(figsize=(side + 1, side), layout="constrained")
        axes = page.subplots()
        table = self.confusion
        share = table / np.maximum(table.sum(1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        if self.classes <= 40:
            for row, column in np.ndindex(*table.shape):
                if table[row, column]:
                    color = "white" if share[row, column] > 0.5 else "black"
                    axes.text(column, row, str(table[row, column]), ha="center", va="center", fontsize=7, color=color)
            axes.set_xticks(range(self.classes), self.names, rotation=90, fontsize=8)
            axes.set_yticks(range(self.classes), self.names, fontsize=8)
        axes.set_xlabel("called")
        axes.set_ylabel("is")
        axes.set_title(f"{100 * self.accuracy:.1f} % of {len(self.labels)} are correct", fontsize=10)
        with files.atomic(path) as file:
            page.savefig(file, format=Path(path).suffix.lstrip(".").lower() or "png", dpi=110)
