"""Checks of options and bottoms that the augmentation layers share, and the cells of a map."""

from __future__ import annotations

import torch
from torch import Tensor

from caffe.layers.augmentation.coefficients import COUNT, KINDS, Columns
from caffe.layers.base import Layer, shape_text
from caffe.layers.support.options import written

__all__ = ["as_maps", "check_coefficients", "check_fit", "check_kinds", "check_map", "crop_of", "grid"]


def check_kinds(layer: Layer, fields: tuple[str, ...]) -> None:
    """Check the distributions among these options."""
    for name in written(layer.opt, fields):
        kind = getattr(layer.opt, name).rand_type
        layer.require(kind in KINDS, f'{name} has rand_type "{kind}", expected one of {", ".join(KINDS)}')


def check_map(layer: Layer, index: int, x: Tensor, count: int | None, channels: int | None = None) -> None:
    """Check that bottom `index` is (N, C, H, W) and not empty, with N = `count` and C = `channels` if given."""
    fits = x.dim() == 4 and x.numel() > 0
    fits = fits and count in (None, len(x)) and channels in (None, x.shape[1])
    wanted = f"({'N' if count is None else count}, {'C' if channels is None else channels}, H, W)"
    layer.require(fits, f"{layer.bottom_name(index)} has shape {shape_text(x.shape)}, expected {wanted}")


def check_coefficients(layer: Layer, index: int, x: Tensor, count: int) -> None:
    """Check that bottom `index` has the shape of the coefficients of `count` images."""
    fits = x.dim() > 1 and x.shape[:2] == (count, COUNT) and x.numel() == count * COUNT
    fact = f"{layer.bottom_name(index)} has shape {shape_text(x.shape)}, expected ({count}, {COUNT}, 1, 1)"
    layer.require(fits, f"{fact}: coefficients that an augmentation layer wrote")


def crop_of(layer: Layer, needed: bool) -> tuple[int, int] | None:
    """Height and width of the crop from the options, None if they are not given."""
    opt = layer.opt
    given = [opt.HasField(name) for name in ("crop_height", "crop_width")]
    layer.require(all(given) or not (needed or any(given)), "needs both crop_height and crop_width")
    if not all(given):
        return None
    crop = (opt.crop_height, opt.crop_width)
    layer.require(min(crop) > 0, f"the crop is {crop[0]} x {crop[1]}, expected sizes above 0")
    return crop


def check_fit(layer: Layer, crop: tuple[int, int], x: Tensor) -> None:
    """Check that the crop fits in bottom 0, x (N, C, H, W)."""
    fact = f"{layer.bottom_name(0)} has shape {shape_text(x.shape)}, and the crop is {crop[0]} x {crop[1]}"
    layer.require(crop[0] <= x.shape[2] and crop[1] <= x.shape[3], f"{fact}; expected a crop that fits in the images")


def grid(x: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Column (w) and row (h, 1) of each cell."""
    height, width = size
    column = torch.arange(width, device=x.device, dtype=x.dtype)
    return column, torch.arange(height, device=x.device, dtype=x.dtype).unsqueeze(1)


def as_maps(by: Columns) -> Columns:
    """The columns with two more axes, for a map of each image."""
    return {name: x.view(-1, 1, 1) for name, x in by.items()}
