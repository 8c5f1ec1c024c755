"""Monte Carlo dropout, and reliability: whether a net's confidence agrees with its accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caffe.errors import CaffeError, require_extra
from caffe.net import Net
from caffe.net.run.monte_carlo import first_repeated
from caffe.proto import files

__all__ = ["Reliability", "draw", "samples", "softmax"]

BINS = 10


def samples(net: Net, runs: int, names: Sequence[str]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Run a net in TEST once without dropout, and `runs` times with dropout, on one batch.

    The batch is the next one of the data layers, or the current values of the inputs. Returns two dictionaries of the
    blobs `names`: the values without dropout, of the blob's shape, and those with dropout, of shape (runs, *shape).
    Only the layers that depend on dropout are run repeatedly. Afterwards dropout is off.
    """
    if runs < 1:
        raise CaffeError(f"runs is {runs}, expected at least 1")
    net.monte_carlo(False)
    net.forward_loss()
    plain = {name: net.blobs[name].data.copy() for name in names}
    net.monte_carlo()
    try:
        start = net.layer_names[first_repeated(net.steps)]
        drawn: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for _ in range(runs):
            net.forward(start=start)
            for name in names:
                drawn[name].append(net.blobs[name].data.copy())
    finally:
        net.monte_carlo(False)
    return plain, {name: np.stack(each) for name, each in drawn.items()}


def softmax(scores: np.ndarray, axis: int) -> np.ndarray:
    """Return the probabilities of scores along an axis, in float64."""
    powers = np.exp(scores.astype(np.float64) - scores.max(axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis, keepdims=True))


class Reliability:
    """Compares the confidence of a classifier, its largest probability, with its accuracy.

    The items are divided into ten bins by their confidence. In each bin of a reliable net, the accuracy equals the mean
    confidence.
    """

    def __init__(self) -> None:
        self.confidence: list[np.ndarray] = []
        self.right: list[np.ndarray] = []

    def add(self, probabilities: np.ndarray, labels: np.ndarray) -> None:
        """Add items: their probabilities (items, classes), and the index of the correct class of each, (items,)."""
        self.confidence.append(probabilities.max(1))
        self.right.append(probabilities.argmax(1) == labels)

    def bins(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the mean confidence, the accuracy (both NaN for an empty bin) and the number of items of each bin."""
        confidence, right = np.concatenate(self.confidence), np.concatenate(self.right)
        place = np.minimum((confidence * BINS).astype(int), BINS - 1)
        count = np.bincount(place, minlength=BINS)
        sums = [np.bincount(place, weights=values, minlength=BINS) for values in (confidence, right)]
        mean = [np.where(count > 0, each / np.maximum(count, 1), np.nan) for each in sums]
        return mean[0], mean[1], count

    @property
    def error(self) -> float:
        """The expected calibration error: the mean difference between confidence and accuracy, weighted by the items.

        Source: Guo et al., arXiv:1706.04599.
        """
        confidence, right, count = self.bins()
        return float(np.nansum(np.abs(confidence - right) * count) / count.sum())

    @property
    def accuracy(self) -> float:
        """The fraction of items that are classified correctly."""
        return float(np.concatenate(self.right).mean())


def draw(kinds: dict[str, Reliability], path: str | Path) -> None:
    """Draw the accuracy over the confidence for each entry of `kinds`, side by side, into a picture file.

    Raises MissingExtra and FileError.
    """
    figures: Any = require_extra("matplotlib.figure", "plot", "drawing a reliability plot")
    page = figures.Figure(figsize=(4.6 * len(kinds), 5.2), layout="constrained")
    columns = page.subplots(2, len(kinds), squeeze=False, sharex=True, height_ratios=(3, 1))
    edges = np.arange(BINS) / BINS + 0.5 / BINS
    for (top, bottom), (name, kind) in zip(columns.T, kinds.items(), strict=True):
        confidence, right, count = kind.bins()
        top.bar(edges, np.nan_to_num(right), 0.9 / BINS, color="tab:blue", label="accuracy")
        top.plot([0, 1], [0, 1], color="tab:gray", linestyle="--", label="accuracy = confidence")
        top.plot(confidence, right, "o", color="tab:orange", markersize=4, label="mean confidence of a bin")
        top.set_title(f"{name}: {100 * kind.accuracy:.1f} % correct\ncalibration error {kind.error:.3f}", fontsize=10)
        top.set_ylim(0, 1)
        top.set_ylabel("accuracy")
        top.legend(loc="upper left", fontsize=8)
        bottom.bar(edges, count, 0.9 / BINS, color="tab:gray")
        bottom.set_xlim(0, 1)
        bottom.set_xlabel("confidence")
        bottom.set_ylabel("items")
    with files.atomic(path) as file:
        page.savefig(file, format=Path(path).suffix.lstrip(".").lower() or "png", dpi=110)
