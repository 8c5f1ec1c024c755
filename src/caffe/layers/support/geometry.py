"""Sliding windows over the spatial axes of a blob: their options, number and positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from caffe.layers.base import Layer, shape_text
from caffe.limits import check_size

__all__ = ["FAR", "Slide", "im2col", "margins", "per_axis", "read_slide"]

FAR = 256
"""Strides of this size or more are not passed to torch's convolutions. Their run time grows with the stride: 16384
takes many seconds for a few cells, and larger strides crash the process with a segmentation fault."""
_LARGEST = (1 << 31) - 1


@dataclass(frozen=True)
class Slide:
    """Kernel, stride, pad and dilation of a window, each with one number per spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """The number of cells that a window spans: dilation (kernel - 1) + 1."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def clamped(self, sizes: Sequence[int]) -> Slide:
        """Equivalent windows for axes of these sizes, where a stride that leaves a single window is reduced."""
        if max(self.stride, default=1) < FAR:
            return self
        axes = zip(sizes, self.extent, self.pad, self.stride, strict=True)
        return replace(self, stride=tuple(min(s, max(n + 2 * p - e, 0) + 1) for n, e, p, s in axes))

    def windows(self, sizes: Sequence[int]) -> list[int]:
        """The number of windows along each axis."""
        axes = zip(sizes, self.extent, self.pad, self.stride, strict=True)
        return [max(n + 2 * p - e, 0) // s + 1 for n, e, p, s in axes]

    def padded(self, sizes: Sequence[int]) -> list[int]:
        """The number of cells along each axis, including padding."""
        return [n + 2 * p for n, p in zip(sizes, self.pad, strict=True)]

    def is_plain(self, sizes: Sequence[int]) -> bool:
        """Whether torch's convolutions support these windows: the bottom holds at least one, and no stride is large."""
        return max(self.stride, default=1) < FAR and not any(self.deficit(sizes))

    def deficit(self, sizes: Sequence[int]) -> list[int]:
        """The number of cells by which the window exceeds the padded bottom, per axis."""
        return [max(0, e - n - 2 * p) for n, e, p in zip(sizes, self.extent, self.pad, strict=True)]


def per_axis(
    layer: Layer, field: str, axes: int, default: int | None = None, one_side: bool = False
) -> tuple[int, ...]:
    """Read an option for each spatial axis, which is given once, once per axis, or as `<stem>_h` and `<stem>_w`.

    Without a `default` the option is required. With `one_side`, only one of `<stem>_h` and `<stem>_w` need be given,
    and the other is 0.
    """
    opt, fields = layer.opt, layer.opt.DESCRIPTOR.fields_by_name
    sides = [f"{field.removesuffix('_size')}_{side}" for side in "hw"]
    given = [side for side in sides if side in fields and opt.HasField(side)]
    value = getattr(opt, field)
    if isinstance(value, int):
        value = [value] if opt.HasField(field) else []
    values = list(value)
    if given:
        layer.require(axes == 2, f"{given[0]} is for 2 spatial axes and the bottom has {axes}; use {field}")
        layer.require(not values, f"{field} and {given[0]} are both given; keep one of them")
        missing = set(sides) - set(given)
        layer.require(one_side or not missing, f"{given[0]} without {''.join(missing)}; give both, or {field}")
        values = [getattr(opt, side) for side in sides]
    if not values and default is not None:
        values = [default]
    layer.require(
        len(values) in (1, axes),
        f"{field} is given {len(values)} times, expected once, or once for each of the {axes} spatial axes",
    )
    fact = f"{field} {tuple(values)} is larger than {_LARGEST}; use a smaller one"
    layer.require(all(value <= _LARGEST for value in values), fact)
    return tuple(values * axes if len(values) == 1 else values)


def read_slide(layer: Layer, axes: int) -> Slide:
    """The window that a ConvolutionParameter describes, for a bottom with `axes` spatial axes."""
    slide = Slide(
        per_axis(layer, "kernel_size", axes),
        per_axis(layer, "stride", axes, 1),
        per_axis(layer, "pad", axes, 0, one_side=True),
        per_axis(layer, "dilation", axes, 1),
    )
    for name in ("kernel", "stride", "dilation"):
        sizes = getattr(slide, name)
        layer.require(all(size > 0 for size in sizes), f"{name} {sizes} must be positive on every spatial axis")
    return slide


def margins(layer: Layer, slide: Slide, sizes: Sequence[int]) -> list[int]:
    """The number of cells to add at the end of each axis so that one window fits. Raises an error if none can fit.

    Caffe divides by the stride towards zero, so a deficit smaller than the stride still leaves one window.
    """
    if max(slide.stride, default=1) >= FAR:
        check_size("the bottom with its padding", slide.padded(sizes), layer.error)
    lack = slide.deficit(sizes)
    if any(d >= s for d, s in zip(lack, slide.stride, strict=True)):
        layer.error(
            f"a kernel that spans {slide.extent} does not fit into the bottom of size {shape_text(sizes)} "
            f"with pad {slide.pad}; use a smaller kernel or dilation, or more pad"
        )
    return lack


def pad_axes(x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Tensor:
    """Extend the last axes of x by `before` and `after` cells. Returns x itself if there is nothing to add."""
    if not any(before) and not any(after):
        return x
    # F.pad starts with the last axis
    return F.pad(x, [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair], value=value)


def im2col(x: Tensor, slide: Slide) -> Tensor:
    """The cells of every window: x (N, C, *sizes) -> (N, C * prod(kernel), *windows), for any number of axes."""
    axes = len(slide.kernel)
    windows = pad_axes(x, slide.pad, slide.pad)
    for axis, (extent, stride) in enumerate(zip(slide.extent, slide.stride, strict=True)):
        windows = windows.unfold(2 + axis, extent, stride)
    taken: Any = (..., *(slice(None, None, d) for d in slide.dilation))
    order = (0, 1, *range(2 + axes, 2 + 2 * axes), *range(2, 2 + axes))
    return windows[taken].permute(order).flatten(1, 1 + axes)
