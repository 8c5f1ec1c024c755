"""Bilinear interpolation of maps at positions that differ from cell to cell."""

from __future__ import annotations

from torch import Tensor

__all__ = ["interpolated"]


def interpolated(x: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """The values (N, C, h, w) of x (N, C, H, W) at positions (N, h, w) from 0 to H - 1 and 0 to W - 1.

    A neighbour beyond the last row or column is replaced by the last one.
    """
    sides = [z.unsqueeze(1) for z in (row, column)]
    near = [z.detach().floor().long() for z in sides]
    far = [(z + 1).clamp(max=n - 1) for z, n in zip(near, x.shape[2:], strict=True)]
    down, across = (z - z.detach().floor() for z in sides)

    def at(i: Tensor, j: Tensor) -> Tensor:
        index = (i * x.shape[3] + j).flatten(2).expand(-1, x.shape[1], -1)
        return x.flatten(2).gather(2, index).view(*x.shape[:2], *row.shape[1:])

    top = at(near[0], near[1]) * (1 - across) + at(near[0], far[1]) * across
    low = at(far[0], near[1]) * (1 - across) + at(far[0], far[1]) * across
    return top * (1 - down) + low * down
