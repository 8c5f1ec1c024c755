"""Regions of interest (ROIs): checks of their blob, and the bins into which a region is divided."""

from __future__ import annotations

import torch
from torch import Tensor

from caffe.layers.base import Layer, shape_text
from caffe.layers.support.labels import number_text
from caffe.layers.support.values import can_look

__all__ = ["Bins", "bins", "check_regions", "example_regions", "images_of", "is_dry", "nearest", "pooled_sizes"]
__all__ += ["widened"]

Bins = tuple[Tensor, Tensor]
"""The first cell, and the cell after the last one, of each bin."""


def check_regions(layer: Layer, x: Tensor, rois: Tensor) -> None:
    """Check that x is (N, C, H, W) with at least one cell, and rois (R, 5) or (R, 5, 1, 1)."""
    fact = f"{layer.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, H, W) with at least one cell"
    layer.require(x.dim() == 4 and x.shape[2] > 0 and x.shape[3] > 0, fact)
    fact = f"{layer.bottom_name(1)} has shape {shape_text(rois.shape)}, expected (R, 5): rows [image, x1, y1, x2, y2]"
    layer.require(rois.dim() >= 2 and rois.shape[1] == 5 and rois.shape[2:].numel() == 1, fact)


def pooled_sizes(layer: Layer) -> tuple[int, int]:
    """pooled_h and pooled_w of the layer's options. Both must be positive."""
    opt = layer.opt
    layer.require(opt.pooled_h > 0 and opt.pooled_w > 0, "pooled_h and pooled_w must both be given and positive")
    return opt.pooled_h, opt.pooled_w


def widened(rois: Tensor, ratio: float) -> Tensor:
    """Regions (R, 5) whose edges are moved outwards by `ratio` times the width or height in pixels, as in MS-CNN."""
    if not ratio:
        return rois
    pad = (rois[:, 3:] - rois[:, 1:3] + 1) * ratio
    return torch.cat([rois[:, :1], rois[:, 1:3] - pad, rois[:, 3:] + pad], 1)


def images_of(layer: Layer, rois: Tensor, images: int) -> Tensor:
    """The image index of each region, column 0 of rois (R, 5), as integers. Raises an error if one is out of range."""
    index = rois[:, 0].nan_to_num(-1, -1, -1).long()
    if not can_look(index) or not index.numel():
        return index
    wrong = (index < 0) | (index >= images)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        layer.error(
            f"{layer.bottom_name(1)} has the image index {number_text(float(rois[row, 0]))} in row {row}, expected 0 "
            f"to {images - 1} for a batch of {images}; correct column 0 of the regions"
        )
    return index


def example_regions(rois: Tensor, scale: float) -> Tensor:
    """Valid values for a blob (R, 5): regions of 3 to 5 cells of image 0, which start near the first cell."""
    index = torch.arange(rois.shape[0], dtype=rois.dtype, device=rois.device)
    left, top, size = index % 3, index % 2, index % 3 + 2.3
    corners = torch.stack([left, top, left + size, top + size], 1) / (scale or 1)
    return torch.cat([torch.zeros_like(corners[:, :1]), corners], 1).view(rois.shape)


def is_dry(x: Tensor) -> bool:
    """Whether only the shapes of the tops are needed. A layer with many operators then returns them directly, since
    torch would first import a compiler, which takes most of a second."""
    return x.is_meta and not torch.is_grad_enabled()


def nearest(x: Tensor) -> Tensor:
    """Round x to integers, halves away from zero as C's `round` does. torch.round rounds halves to even."""
    whole = x.trunc()
    return whole + x.sign() * ((x - whole).abs() >= 0.5)


def bins(size: Tensor, count: int, cells: int, start: Tensor | float = 0.0, shift: Tensor | float = 0.0) -> Bins:
    """Divide regions into bins along one axis: the first cell and the cell after the last of each bin, both (R, count).

    Bin i spans floor(start + i size / count) + shift ... ceil(start + (i + 1) size / count) + shift, clipped to
    0 ... cells. `size`, `start` and `shift` are (R, 1). They have the bottom's precision, which affects the rounding.
    """
    step, index = size / count, torch.arange(count, device=size.device, dtype=size.dtype)
    first = (index * step + start).floor() + shift
    after = ((index + 1) * step + start).ceil() + shift
    return _cell(first, cells), _cell(after, cells)


def _cell(x: Tensor, cells: int) -> Tensor:
    return x.nan_to_num(0.0).clamp(0, cells).long()
