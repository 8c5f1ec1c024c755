"""The largest cells of many rectangles of one map, from tables of the maxima of squares and strips."""

from __future__ import annotations

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
    (top, below), (left, right) = rows, columns
    high, wide = _level(below - top, x.shape[1]), _level(right - left, x.shape[2])
    values, starts, sizes = _tables(x, _used(high, x.shape[1]), _used(wide, x.shape[2]))
    ys, xs = (top, below - (1 << high)), (left, right - (1 << wide))
    high, wide = high.unsqueeze(2), wide.unsqueeze(1)
    height, width = sizes[:, high, wide].unbind()
    start = starts[high, wide] + image.view(-1, 1, 1) * height * width
    reads = []
    for y in ys:
        for z in xs:
            row, column = y.unsqueeze(2).clamp(min=0), z.unsqueeze(1).clamp(min=0)
            reads.append((start + row.minimum(height - 1) * width + column.minimum(width - 1)).flatten())
    return _largest_of(values, reads).view(*start.shape, x.shape[3])


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
    levels = torch.tensor([max(n.bit_length() - 1, 0) for n in range(cells + 1)], device=span.device)
    return levels[span.clamp(0, cells)]


def _used(level: Tensor, cells: int) -> int:
    """How many levels the tables need: those of the largest rectangle if it can be looked at, else all."""
    if can_look(level) and level.numel():
        return int(level.max()) + 1
    return cells.bit_length()


def _tables(x: Tensor, high: int, wide: int) -> tuple[Tensor, Tensor, Tensor]:
    """All tables as rows of C channels; the first row of each table (high, wide), and its sizes (2, high, wide)."""
    tables, tall = [], x
    for i in range(high):
        tall = _doubled(tall, 1, 1 << i >> 1)
        table = tall
        for j in range(wide):
            table = _doubled(table, 2, 1 << j >> 1)
            tables.append(table)
    sizes = torch.tensor([table.shape[1:3] for table in tables], device=x.device).T.reshape(2, high, wide)
    lengths = sizes.prod(0).flatten() * x.shape[0]
    starts = (lengths.cumsum(0) - lengths).view(high, wide)
    return torch.cat([table.reshape(-1, x.shape[3]) for table in tables]), starts, sizes


def _doubled(table: Tensor, axis: int, step: int) -> Tensor:
    """The table for rectangles of twice the side `step` along an axis; the table itself if `step` is 0."""
    if not step:
        return table
    length = table.shape[axis] - step
    return torch.maximum(table.narrow(axis, 0, length), table.narrow(axis, step, length))
