"""How FlowNet's augmentations change the colours of images (N, 3, H, W), given the values of the coefficients.

Each function changes all images if a coefficient of any image is not neutral, as the source does: images with neutral
coefficients are limited to the range of values, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from caffe.layers.augmentation.coefficients import CHROMATIC, EIGEN, Columns, has_changes

__all__ = ["recoloured", "shaded", "turned"]

_TINY = 1e-2


def recoloured(x: Tensor, by: Columns, most: float) -> Tensor:
    """Change colour balance, gamma, brightness and contrast, in this order, of values from 0 to 1."""
    tint = torch.stack([by[f"color{i}"] for i in (1, 2, 3)], 1).view(-1, 3, 1, 1)
    gamma, brightness, contrast = (by[name].view(-1, 1, 1, 1) for name in ("gamma", "brightness", "contrast"))
    tinted = x * tint
    light = x.sum(1, keepdim=True) / (tinted.sum(1, keepdim=True) + 0.01)
    y = (tinted * light).clamp(0, 1) ** gamma + brightness
    y = (0.5 + (y - 0.5) * contrast).clamp(0, most)
    return y.where(has_changes(by, CHROMATIC), x)


def shaded(x: Tensor, by: Columns, most: float) -> Tensor:
    """Darken the half plane on one side of a line, and add noise. Fog and motion blur only limit the values."""
    (height, width), column = x.shape[2:], {name: value.view(-1, 1, 1) for name, value in by.items()}
    across = torch.arange(width, device=x.device, dtype=x.dtype) - width // 2
    down = (torch.arange(height, device=x.device, dtype=x.dtype) - height // 2).unsqueeze(1)
    side = across * column["shadow_angle"].cos() + down * column["shadow_angle"].sin() - column["shadow_distance"]
    dark = column["shadow_strength"] * (side > 0)
    y = (x - dark.unsqueeze(1)).clamp(0, most)
    y = y + torch.randn_like(x) * by["noise"].clamp(min=0).view(-1, 1, 1, 1)
    foggy = (by["fog_amount"] != 0) & (by["fog_size"] != 0)
    used = foggy | (by["motion_blur_size"] > 0) | (by["shadow_strength"] > 0) | (by["noise"] > 0)
    return y.where(used.any(), x)


def turned(x: Tensor, whole: Tensor, by: Columns, vectors: Sequence[float], most: float) -> Tensor:
    """Change colours along three axes: the rows of the matrix `vectors`, of 9 numbers, for red, green and blue.

    `whole` are the images before the crop. Their mean colour and the largest coordinates in the batch are the units.
    """
    rows = [vectors[3 * i : 3 * i + 3] for i in range(3)]
    columns = {name: by[name].view(-1, 1, 1) for name in EIGEN}
    largest = [axis.abs().amax() for axis in _along(rows, whole)]
    units = [m.where(m > _TINY, 1) for m in largest]
    mean = whole.mean((0, 2, 3), keepdim=True)
    axes = []
    for i, (axis, centre) in enumerate(zip(_along(rows, x - mean), _along(rows, mean), strict=True)):
        moved = _stretched(axis / units[i], columns, f"nomean{i}")
        axes.append(moved.where(largest[i] > _TINY, axis) + centre / units[i])
    axes = _saturated(axes, columns, largest, units)
    y = torch.stack(_along(list(zip(*rows, strict=True)), axes), 1).clamp(max=most).clamp(min=0)
    return y.where(has_changes(by, EIGEN), x)


def _along(rows: Sequence[Sequence[float]], x: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """The products of a matrix (3, 3) with the channels of x."""
    channels = x.unbind(1) if isinstance(x, Tensor) else x
    return [row[0] * channels[0] + row[1] * channels[1] + row[2] * channels[2] for row in rows]


def _stretched(x: Tensor, by: Columns, which: str) -> Tensor:
    """(sign(x) |x|^pow + add) mult, with the coefficients whose names end in `which`."""
    power, add, factor = (by[f"{kind}_{which}"] for kind in ("pow", "add", "mult"))
    return (torch.copysign(x.abs() ** power, x) + add) * factor


def _length(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).square().sum(0).sqrt()


def _saturated(axes: list[Tensor], by: Columns, largest: list[Tensor], units: list[Tensor]) -> list[Tensor]:
    """Change lightness, saturation, hue, and the length of the colour, of coordinates along the three axes."""
    first = _stretched(axes[0], by, "withmean0").where(largest[0] > _TINY, axes[0])
    chroma = _length(axes[1:])
    wanted = (chroma ** by["pow_withmean1"] + by["add_withmean1"]).clamp(min=0) * by["mult_withmean1"]
    cos, sin = by["col_angle"].cos(), by["col_angle"].sin()
    axes = [first, cos * axes[1] - sin * axes[2], sin * axes[1] + cos * axes[2]]
    axes = [axis * unit for axis, unit in zip(axes, units, strict=True)]
    longest = _length(largest)
    share = _length(axes) / longest
    axes = [axes[0], *((axis / chroma * wanted).where(chroma > _TINY, axis) for axis in axes[1:])]
    length = _length(axes)
    goal = (share ** by["lmult_pow"] + by["lmult_add"]).clamp(min=0) * by["lmult_mult"] * longest
    usable = (longest > _TINY) & (length > _TINY)
    scaled = [torch.minimum(axis / length * goal, most) for axis, most in zip(axes, largest, strict=True)]
    return [new.where(usable, old) for new, old in zip(scaled, axes, strict=True)]
