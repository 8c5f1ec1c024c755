"""Bilinear sampling of a map on a grid of rows and columns, as two matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["hats", "sampled"]

_PART = 1 << 23
"""The largest number of elements of an intermediate product."""


def hats(points: Tensor, cells: int, valid: Tensor) -> Tensor:
    """The interpolation weights (..., cells) of an axis at `points`, clamped to the axis; 0 where not `valid`."""
    grid = torch.arange(cells, device=points.device, dtype=points.dtype)
    distance = (points.clamp(0, cells - 1).unsqueeze(-1) - grid).abs()
    return (1 - distance).clamp(min=0).where(valid.unsqueeze(-1), 0)


def sampled(x: Tensor, image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """y[r, c, p, q] = sum over h, w of rows[r, p, h] columns[r, q, w] x[image[r], c, h, w].

    x (N, C, H, W), image (R), rows (R, P, H), columns (R, Q, W)
    """
    images, channels, height, width = x.shape
    regions, across = rows.shape[:2]
    if images > 1:  # concatenate the maps of all images vertically
        here = (torch.arange(images, device=image.device) == image.unsqueeze(1)).to(rows.dtype)
        rows = (rows.unsqueeze(2) * here.view(regions, 1, images, 1)).flatten(2)
    table = x.permute(0, 2, 3, 1).reshape(images * height, width * channels)
    size = max(1, _PART // max(1, across * width * channels))
    parts = []
    for some, side in zip(rows.split(size), columns.split(size), strict=True):
        lines = (some.flatten(0, 1) @ table).view(-1, across, width, channels)
        parts.append(side.unsqueeze(1) @ lines)
    return torch.cat(parts).permute(0, 3, 1, 2).contiguous()
