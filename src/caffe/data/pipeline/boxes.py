"""Labelled boxes of an image, and how crops and mirroring change them.

Boxes are rows (M, 7) of float32: label, instance, xmin, ymin, xmax, ymax, difficult. Coordinates are fractions of the
image's width and height.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from caffe.proto import caffe_pb2

__all__ = ["NONE", "SIDES", "areas", "covered", "intersections", "mirrored", "projected"]

SIDES = slice(2, 6)
"""The columns of the coordinates."""
NONE = np.empty((0, 7), np.float32)
_CENTER = caffe_pb2.EmitConstraint.CENTER


def areas(boxes: np.ndarray) -> np.ndarray:
    """Return the areas (...) of boxes (..., 4). A box whose maximum is below its minimum has area 0."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def intersections(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the intersection areas (...) of boxes a (..., 4) and b (..., 4)."""
    return areas(np.concatenate([np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])], -1))


def covered(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the fraction (...) of each box a (..., 4) that lies within b (..., 4)."""
    return intersections(a, b) / np.maximum(areas(a), 1e-12)


def projected(rows: np.ndarray, windows: np.ndarray, emit: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Convert boxes (M, 7) to coordinates relative to `windows`, clip them, and return which boxes are kept (M).

    `windows` is one window (4,), or one per box (M, 4). A box is kept if its area within the window is not 0 and it
    satisfies `emit`, an EmitConstraint: its centre is in the window, or more than emit_overlap of the box is.
    """
    boxes = rows[:, SIDES]
    windows = np.broadcast_to(windows.astype(np.float32), boxes.shape)
    near, size = windows[:, :2], windows[:, 2:] - windows[:, :2]
    moved = (boxes - np.tile(near, 2)) / np.tile(size, 2)
    result = rows.copy()
    result[:, SIDES] = np.clip(moved, 0, 1)
    stays = areas(result[:, SIDES]) > 0
    if emit is not None and emit.emit_type == _CENTER:
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        stays &= ((centres >= near) & (centres <= windows[:, 2:])).all(1)
    elif emit is not None:
        stays &= covered(boxes, windows) > emit.emit_overlap
    return result, stays


def mirrored(rows: np.ndarray, which: np.ndarray) -> None:
    """Mirror the boxes (M, 7) for which `which` (M) is true, in place."""
    left, right = rows[:, 2].copy(), rows[:, 4].copy()
    rows[:, 2] = np.where(which, 1 - right, left)
    rows[:, 4] = np.where(which, 1 - left, right)
