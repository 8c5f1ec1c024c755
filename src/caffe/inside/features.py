"""Similar inputs: a blob as features, nearest neighbours, and two-dimensional maps."""

from __future__ import annotations

import numpy as np

from caffe.errors import ArgumentError
from caffe.inside.probe import Probe

__all__ = ["features", "neighbours", "pca", "tsne"]

_LARGEST = 5000  # largest number of items for t-SNE, which compares all pairs


def features(probe: Probe, images: np.ndarray, blob: str = "") -> np.ndarray:
    """Return a blob's values for images (N, C, H, W) as rows (N, D). The default blob is the scores."""
    values = probe.values(images, blob or probe.output)
    return values.reshape(len(values), -1)


def neighbours(rows: np.ndarray, query: np.ndarray, count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest rows (N, D) of each query (M, D): indices (M, count) and distances, nearest first."""
    rows, query = np.atleast_2d(np.asarray(rows, np.float64)), np.atleast_2d(np.asarray(query, np.float64))
    if rows.shape[1] != query.shape[1] or not 1 <= count <= len(rows):
        raise ArgumentError(
            f"cannot find {count} neighbours of {query.shape} among {rows.shape}; expected (M, D), (N, D)"
        )
    distances = np.sqrt(_squares(query, rows))
    order = np.argsort(distances, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(distances, order, 1)


def pca(rows: np.ndarray, axes: int = 2) -> np.ndarray:
    """Project rows (N, D) on their first principal axes, (N, axes). The largest weight of each axis is positive."""
    rows = _checked(rows, axes)
    centred = rows - rows.mean(0)
    left, sizes, right = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(1)])
    made = (left * sizes * signs)[:, :axes]
    return np.pad(made, ((0, 0), (0, axes - made.shape[1])))


def tsne(rows: np.ndarray, perplexity: float = 30.0, steps: int = 500, seed: int = 0) -> np.ndarray:
    """Compute a map (N, 2) that keeps neighbouring rows (N, D) near each other (t-SNE).

    All pairs are compared, so N is limited to 5000. `perplexity` is the approximate number of neighbours, at most a
    third of N.
    Source: van der Maaten & Hinton, JMLR 9 (2008), with their gains and early exaggeration.
    """
    rows = _checked(rows, 2)
    if len(rows) > _LARGEST:
        raise ArgumentError(f"t-SNE compares all pairs of {len(rows)} rows; give {_LARGEST} at most")
    if len(rows) < 4:
        return pca(rows)
    near = _affinities(rows, min(perplexity, (len(rows) - 1) / 3))
    points = pca(rows) if rows.any() else np.random.default_rng(seed).normal(size=(len(rows), 2))
    points = 1e-4 * points / (points.std() or 1) + 1e-6 * np.random.default_rng(seed).normal(size=points.shape)
    speed, gains = np.zeros_like(points), np.ones_like(points)
    rate = max(50.0, len(rows) / 12)
    for step in range(steps):
        factor = 12.0 if step < steps // 4 else 1.0
        inverse = 1 / (1 + _squares(points, points))
        np.fill_diagonal(inverse, 0)
        pull = (factor * near - inverse / inverse.sum()) * inverse
        gradient = 4 * (pull.sum(1)[:, None] * points - pull @ points)
        gains = np.maximum(0.01, np.where(np.sign(gradient) == np.sign(speed), gains * 0.8, gains + 0.2))
        speed = (0.5 if step < steps // 4 else 0.8) * speed - rate * gains * gradient
        points = points + speed
    return points - points.mean(0)


def _affinities(rows: np.ndarray, perplexity: float) -> np.ndarray:
    """Return the probabilities (N, N), symmetric, that two rows are neighbours.

    The width of each row is found by bisection.
    """
    squares = _squares(rows, rows)
    squares /= squares.mean() or 1
    np.fill_diagonal(squares, np.inf)
    low, high = np.full(len(rows), 1e-10), np.full(len(rows), 1e10)
    near = squares - squares.min(1, keepdims=True)
    for _ in range(80):
        middle = np.sqrt(low * high)
        weights = np.exp(-near * middle[:, None])
        weights /= weights.sum(1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.nansum(weights * np.log(weights), 1)
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, middle, low), np.where(wide, high, middle)
    return np.maximum((weights + weights.T) / (2 * len(rows)), 1e-12)


def _squares(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the squared distances of all pairs of rows."""
    sums = (one**2).sum(1)[:, None] + (other**2).sum(1)
    return np.maximum(sums - 2 * one @ other.T, 0)


def _checked(rows: np.ndarray, axes: int) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2 or len(rows) < 2 or axes < 1 or not np.isfinite(rows).all():
        raise ArgumentError(f"a map needs finite rows (N, D) with N of 2 or more, and got shape {rows.shape}")
    return rows
