"""The largest cells of many rectangles of one map, from tables of the maxima of squares and strips."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from caffe.layers.regions.rois import Bins
from caffe.layers.support.values import can_look

__all__ = ["first_largest", "largest"]

_PART = 1 << 17
"""Elements that are compared at a time."""


def largest(x: Tensor, image: Tensor, rows: Bins, columns: Bins) -> Tensor:
    """The maximum of each channel over each rectangle: (R, P, Q, C).

    x is (N, H, W, C), image (R) the map of a region, `rows` (R, P) and `columns` (R, Q) its rectangles. A rectangle
    without cells gets the value of some cell.

    A table holds, for sides of 2^i x 2^j cells, the maximum of each such rectangle. Any rectangle is covered by four of
    these, which may overlap, so its maximum takes four reads whatever its size.
    """
    (top, below), (left, right), (images, rows_of_x, columns_of_x, channels) = rows, columns, x.shape
    high, wide = _level(below - top, rows_of_x), _level(right - left, columns_of_x)
    ys, xs = (top, below - (1 << high)), (left, right - (1 << wide))
    tall, broad = _used(high, rows_of_x), _used(wide, columns_of_x)
    values = _tables(x, tall, broad)
    high, wide = high.unsqueeze(2), wide.unsqueeze(1)
    height, width = _side(high, rows_of_x), _side(wide, columns_of_x)
    before = _sides(high, rows_of_x) * _sides(broad, columns_of_x) + height * _sides(wide, columns_of_x)
    start = images * before + image.view(-1, 1, 1) * height * width
    reads = []
    for y in ys:
        for z in xs:
            row, column = y.unsqueeze(2).clamp(min=0), z.unsqueeze(1).clamp(min=0)
            reads.append((start + row.minimum(height - 1) * width + column.minimum(width - 1)).flatten())
    return _largest_of(values, reads).view(*start.shape, channels)


def first_largest(x: Tensor, image: Tensor, rows: Bins, columns: Bins) -> Tensor:
    """Where each maximum stands in its H x W plane, the first in row order of equal ones: (R, P, Q, C).

    The maximum is taken of whole numbers that hold a value's rank above its place.
    """
    cells = x.shape[1] * x.shape[2]
    later = torch.arange(cells - 1, -1, -1, device=x.device).view(1, x.shape[1], x.shape[2], 1)
    return cells - 1 - (largest(_rank(x) << 32 | later, image, rows, columns) & 0xFFFFFFFF)


def _largest_of(values: Tensor, reads: list[Tensor]) -> Tensor:
    """The element-wise maximum of the rows of `values` that `reads` number, in parts that fit the processor's cache."""
    made = []
    for part in zip(*(read.split(max(1, _PART // max(1, values.shape[1]))) for read in reads), strict=True):
        found, other = values.index_select(0, part[0]), None
        for read in part[1:]:
            other = torch.index_select(values, 0, read, out=other)
            torch.maximum(found, other, out=found)
        made.append(found)
    return torch.cat(made)


def _rank(x: Tensor) -> Tensor:
    """Whole numbers of 32 bits in the order of x, equal where x is."""
    if x.dtype == torch.float32:
        bits = (x + 0.0).view(torch.int32)  # + 0.0 turns -0 into 0; the bits of negative numbers fall as these rise
        return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
    ordered, place = x.flatten().sort()
    steps = torch.cat([ordered[:1] != ordered[:1], ordered[1:] != ordered[:-1]]).cumsum(0)
    return torch.empty_like(steps).scatter(0, place, steps).view(x.shape)


def _level(span: Tensor, cells: int) -> Tensor:
    """The largest i with 2^i <= span, for spans up to `cells`; 0 for empty ones."""
    level = torch.zeros_like(span)
    for i in range(1, cells.bit_length()):
        level += span >= 1 << i
    return level


def _side(level: Any, cells: int) -> Any:
    """Cells along one axis of a table of this level, a number or a tensor, for a map of `cells`."""
    return cells + 1 - (1 << level)


def _sides(levels: Any, cells: int) -> Any:
    """The sum of `_side` over the first `levels` levels."""
    return levels * (cells + 1) - (1 << levels) + 1


def _used(level: Tensor, cells: int) -> int:
    """How many levels the tables need: those of the largest rectangle if it can be looked at, else all."""
    if can_look(level) and level.numel():
        return int(level.max()) + 1
    return cells.bit_length()


def _tables(x: Tensor, high: int, wide: int) -> Tensor:
    """All tables as rows of C channels, those of the lower rows' level first."""
    tables, tall = [], x
    for i in range(high):
        tall = _doubled(tall, 1, 1 << i >> 1)
        table = tall
        for j in range(wide):
            table = _doubled(table, 2, 1 << j >> 1)
            tables.append(table)
    return torch.cat([table.reshape(-1, x.shape[3]) for table in tables])


def _doubled(table: Tensor, axis: int, step: int) -> Tensor:
    """The table for rectangles of twice the side `step` along an axis; the table itself if `step` is 0."""
    if not step:
        return table
    length = table.shape[axis] - step
    return torch.maximum(table.narrow(axis, 0, length), table.narrow(axis, step, length))
