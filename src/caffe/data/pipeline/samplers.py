"""batch_sampler of AnnotatedData: random windows of the image that satisfy constraints on its boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from caffe.data.pipeline.boxes import SIDES, areas, covered, intersections
from caffe.errors import DataError

__all__ = ["Samplers"]

_WHOLE = (0.0, 0.0, 1.0, 1.0)


class Samplers:
    """Draws one window of an image, as SSD's list of BatchSampler messages describes it.

    Each sampler draws up to max_trials windows and keeps the first max_sample (all without it) that satisfy its
    constraint. One of all kept windows is chosen, each with the same chance.
        width = scale sqrt(ratio), height = scale / sqrt(ratio), ratio cut to scale^2 ... 1 / scale^2
    A constraint holds if it holds for one box at least. Of the three kinds, only the first that is set counts, in the
    order jaccard overlap, sample coverage, object coverage: SSD's Caffe accepts a box as soon as that one holds.
    Source: Liu et al., arXiv:1512.02325, section 2.2; SSD's sampler.cpp.
    """

    def __init__(self, params: Sequence[Any]) -> None:
        """`params` are BatchSampler messages. Raises DataError for invalid ranges."""
        self.params = [param for param in params if param.use_original_image]
        for param in self.params:
            _check(param.sampler)

    def __bool__(self) -> bool:
        return bool(self.params)

    def __call__(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
        """Return a window (4,) of the image with boxes (M, 7), or None for the whole image."""
        kept = [self._windows(param, rows[:, SIDES], rng) for param in self.params]
        count = sum(map(len, kept))
        window = np.concatenate(kept)[rng.integers(count)] if count else None
        return None if window is None or tuple(window) == _WHOLE else window

    def _windows(self, param: Any, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the windows (K, 4) that one sampler accepts."""
        least = param.max_sample if param.HasField("max_sample") else None
        if _trivial(param.sampler) and not param.sample_constraint.ListFields():
            count = param.max_trials if least is None else min(least, param.max_trials)
            return np.tile(np.array(_WHOLE, np.float32), (count, 1))
        windows = _drawn(param.sampler, param.max_trials, rng)
        return windows[_satisfied(param.sample_constraint, windows, boxes)][:least]


def _check(sampler: Any) -> None:
    scale, ratio = (sampler.min_scale, sampler.max_scale), (sampler.min_aspect_ratio, sampler.max_aspect_ratio)
    if not 0 < scale[0] <= scale[1] <= 1:
        raise DataError(f"batch_sampler takes scales of {scale[0]:g} ... {scale[1]:g}; expected 0 < min <= max <= 1")
    if not 0 < ratio[0] <= ratio[1] < np.inf:
        raise DataError(f"batch_sampler takes aspect ratios of {ratio[0]:g} ... {ratio[1]:g}; expected 0 < min <= max")


def _trivial(sampler: Any) -> bool:
    """Whether every window is the whole image."""
    return all(getattr(sampler, f"{end}_{name}") == 1 for end in ("min", "max") for name in ("scale", "aspect_ratio"))


def _drawn(sampler: Any, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw windows (count, 4) that lie within the image."""
    scale = rng.uniform(sampler.min_scale, sampler.max_scale, count)
    ratio = rng.uniform(sampler.min_aspect_ratio, sampler.max_aspect_ratio, count)
    ratio = np.sqrt(np.clip(ratio, scale**2, 1 / scale**2))
    size = np.minimum(np.stack([scale * ratio, scale / ratio], 1), 1)
    near = rng.uniform(size=(count, 2)) * (1 - size)
    return np.concatenate([near, near + size], 1).astype(np.float32)


def _satisfied(constraint: Any, windows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return which windows (K, 4) satisfy the constraint for at least one of the boxes (M, 4)."""
    if not constraint.ListFields():
        return np.ones(len(windows), bool)
    a, b = windows[:, None], boxes[None]
    for name in ("jaccard_overlap", "sample_coverage", "object_coverage"):
        low, high = f"min_{name}", f"max_{name}"
        if constraint.HasField(low) or constraint.HasField(high):
            values = _measure(name, a, b)
            holds: np.ndarray = np.ones(values.shape, bool)
            if constraint.HasField(low):
                holds &= values >= np.float32(getattr(constraint, low))
            if constraint.HasField(high):
                holds &= values <= np.float32(getattr(constraint, high))
            return np.asarray(holds.any(1))
    return np.zeros(len(windows), bool)


def _measure(name: str, windows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the overlap (K, M), or the fraction of the window or of the box that both have in common."""
    if name == "sample_coverage":
        return covered(np.broadcast_to(windows, (len(windows), boxes.shape[1], 4)), boxes)
    if name == "object_coverage":
        return covered(np.broadcast_to(boxes, (len(windows), boxes.shape[1], 4)), windows)
    windows, boxes = np.broadcast_arrays(windows, boxes)
    common = intersections(windows, boxes)
    return common / np.maximum(areas(windows) + areas(boxes) - common, 1e-12)
