"""Maxima over many rectangles of a map, from precomputed tables of maxima (sparse tables)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from caffe.layers.regions.rois import Bins
from caffe.layers.support.values import can_look

__all__ = ["first_largest", "largest"]

_PART = 1 << 17
"""The number of elements that are compared at a time."""


def largest(x: Tensor, image: Tensor, rows: Bins, columns: Bins) -> Tensor:
    """The maximum of each channel over each rectangle: (R, P, Q, C).

    x is (N, H, W, C), image (R) the map index of each region, `rows` (R, P) and `columns` (R, Q) its rectangles. The
    result for an empty rectangle is the value of an arbitrary cell.

    A table holds the maximum of every rectangle of 2^i x 2^j cells. Four of these, which may overlap, cover any
    rectangle, so a maximum needs four reads for any size.
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
    """The index of each maximum in its H x W plane, the first in row order if several are equal: (R, P, Q, C).

    The maximum is taken over integers whose high bits are the rank of a value and whose low bits are its index.
    """
    cells = x.shape[1] * x.shape[2]
    later = torch.arange(cells - 1, -1, -1, device=x.device).view(1, x.shape[1], x.shape[2], 1)
    return cells - 1 - (largest(_rank(x) << 32 | later, image, rows, columns) & 0xFFFFFFFF)


def _largest_of(values: Tensor, reads: list[Tensor]) -> Tensor:
    """The element-wise maximum of the rows of `values` with the indices `reads`, in parts that fit the cache."""
    made = []
    for part in zip(*(read.split(max(1, _PART // max(1, values.shape[1]))) for read in reads), strict=True):
        found, other = values.index_select(0, part[0]), None
        for read in part[1:]:
            other = torch.index_select(values, 0, read, out=other)
            torch.maximum(found, other, out=found)
        made.append(found)
    return torch.cat(made)


def _rank(x: Tensor) -> Tensor:
    """32-bit integers in the order of x, equal where values of x are equal."""
    if x.dtype == torch.float32:
        bits = (x + 0.0).view(torch.int32)  # + 0.0 turns -0 into 0; for negative x the bits have the reverse order
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
    """The size of one axis of a table of this level (a number or a tensor), for a map of `cells`."""
    return cells + 1 - (1 << level)


def _sides(levels: Any, cells: int) -> Any:
    """The sum of `_side` over the first `levels` levels."""
    return levels * (cells + 1) - (1 << levels) + 1


def _used(level: Tensor, cells: int) -> int:
    """The number of table levels: enough for the largest rectangle if its size can be read, else all."""
    if can_look(level) and level.numel():
        return int(level.max()) + 1
    return cells.bit_length()


def _tables(x: Tensor, high: int, wide: int) -> Tensor:
    """All tables as rows of C channels, ordered by the level of the rows."""
    tables, tall = [], x
    for i in range(high):
        tall = _doubled(tall, 1, 1 << i >> 1)
        table = tall
        for j in range(wide):
            table = _doubled(table, 2, 1 << j >> 1)
            tables.append(table)
    return torch.cat([table.reshape(-1, x.shape[3]) for table in tables])


def _doubled(table: Tensor, axis: int, step: int) -> Tensor:
    """The table for rectangles of side 2 `step` along an axis; the table itself if `step` is 0."""
    if not step:
        return table
    length = table.shape[axis] - step
    return torch.maximum(table.narrow(axis, 0, length), table.narrow(axis, step, length))
