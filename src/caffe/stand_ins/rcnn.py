"""The compiled functions of py-faster-rcnn: non-maximum suppression and overlaps, of boxes with inclusive corners."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from caffe.errors import ArgumentError
from caffe.layers.support import boxes as geometry

__all__ = ["bbox_overlaps", "cpu_nms", "gpu_nms"]


def cpu_nms(dets: Any, thresh: float) -> list[int]:
    """The rows of `dets` (N, 5: corners and score) that are kept, the highest score first.

    A box is dropped if its overlap with a kept box is `thresh` or more.
    """
    limit = np.float32(thresh)
    if float(limit) >= thresh:
        limit = np.nextafter(limit, np.float32(-np.inf))  # overlap >= thresh is overlap > the number before it
    return _nms(dets, float(limit))


def gpu_nms(dets: Any, thresh: float, device_id: int = 0) -> list[int]:
    """`cpu_nms`, but a box is dropped only if its overlap is more than `thresh`, as in the kernel for GPUs.

    `device_id` is for scripts that name a GPU; the computation runs on the CPU.
    """
    return _nms(dets, float(np.float32(thresh)))


def bbox_overlaps(boxes: Any, query_boxes: Any) -> np.ndarray:
    """Intersection over union (N, K) of boxes (N, 4) and query_boxes (K, 4), in double precision."""
    mine, others = (_rows(array, 4, np.float64)[:, :4] for array in (boxes, query_boxes))
    return geometry.overlaps(mine, others, offset=1).numpy()


def _nms(dets: Any, limit: float) -> list[int]:
    rows = _rows(dets, 5, np.float32)
    return geometry.nms(rows[:, :4], rows[:, 4], limit, offset=1).tolist()


def _rows(array: Any, columns: int, kind: type) -> Tensor:
    """The array as a tensor of rows with at least so many columns."""
    rows: np.ndarray = np.array(array, dtype=kind, order="C")
    if rows.ndim != 2 or rows.shape[1] < columns:
        raise ArgumentError(f"the boxes have shape {rows.shape}, expected rows of at least {columns} numbers")
    return torch.from_numpy(rows)
