"""Convolution that samples its input at predicted offsets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe.layers.base import Layer, shape_text
from caffe.layers.regions.rois import is_dry
from caffe.layers.support.geometry import Slide, margins, read_slide

__all__ = ["DeformableConvolution"]


class DeformableConvolution(Layer, bottoms=2):
    """Convolution that samples each cell of its window at a predicted offset.

    bottoms: x (N, C, H, W); offsets (N, 2 kh kw deformable_group, H', W'), the vertical and the horizontal offset for
    each group of channels and window cell   top y (N, num_output, H', W'), with the size that Convolution gives

        y[n, o, p] = bias[o] + sum over c, k of weight[o, c, k] x[n, c, stride p - pad + dilation k + offset[n, k, p]]

    x is interpolated bilinearly between its cells. Cells outside x are 0.
    Blobs: weight (num_output, C / group, kh, kw), bias (num_output). Source: Dai et al., arXiv:1703.06211, eq. 2 and 3.
    """

    weight: Tensor
    bias: Tensor | None

    def setup(self, x: Tensor, offsets: Tensor) -> None:
        opt, parts = self.opt, self.opt.deformable_group
        fact = f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, H, W)"
        self.require(x.dim() == 4 and min(x.shape[1:]) > 0, fact)
        self.require(opt.axis == 1, f"axis is {opt.axis}, expected 1")
        self.slide = read_slide(self, 2)
        self.require(opt.num_output > 0 and opt.group > 0 and parts > 0, "num_output and groups must be positive")
        _check_groups(self, x)
        lack = margins(self, self.slide, x.shape[2:])
        self.require(not any(lack), f"the kernel {self.slide.kernel} is larger than the padded bottom; use more pad")
        self.places = self.slide.kernel[0] * self.slide.kernel[1]
        wanted = (x.shape[0], 2 * self.places * parts, *self.sizes(x))
        fact = f"{self.bottom_name(1)} has shape {shape_text(offsets.shape)}, expected {shape_text(wanted)}"
        self.require(tuple(offsets.shape) == wanted, fact)
        self.add_blob("weight", (opt.num_output, x.shape[1] // opt.group, *self.slide.kernel), opt.weight_filler)
        self.bias = None
        if opt.bias_term:
            del self.bias
            self.add_blob("bias", (opt.num_output,), opt.bias_filler)

    def sizes(self, x: Tensor) -> tuple[int, ...]:
        """(H', W')."""
        axes = zip(self.slide.padded(x.shape[2:]), self.slide.extent, self.slide.stride, strict=True)
        return tuple((n - extent) // stride + 1 for n, extent, stride in axes)

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        sizes, opt = self.sizes(x), self.opt
        if is_dry(x):
            return x.new_empty(x.shape[0], opt.num_output, *sizes)
        columns = _columns(
            x,
            offsets.reshape(x.shape[0] * opt.deformable_group, self.places, 2, *sizes),
            self.slide,
            opt.deformable_group,
        )
        columns = columns.reshape(x.shape[0], opt.group, self.weight[0].numel(), sizes[0] * sizes[1])
        y = (self.weight.reshape(opt.group, opt.num_output // opt.group, -1) @ columns).flatten(1, 2)
        y = y if self.bias is None else y + self.bias.view(-1, 1)
        return y.view(*y.shape[:2], *sizes)


def _check_groups(layer: Layer, x: Tensor) -> None:
    """Raise an error if the channels cannot be split into equal groups."""
    for what, whole, groups in (
        ("channels of the bottom into group", x.shape[1], layer.opt.group),
        ("num_output into group", layer.opt.num_output, layer.opt.group),
        ("channels of the bottom into deformable_group", x.shape[1], layer.opt.deformable_group),
    ):
        layer.require(whole % groups == 0, f"cannot split {whole} {what}: {groups} equal parts")


def _columns(x: Tensor, offsets: Tensor, slide: Slide, parts: int) -> Tensor:
    """The cells that each window reads: (N parts, C / parts, kh kw, H' W'), for offsets (N parts, kh kw, 2, H', W')."""
    points = []
    sizes = offsets.shape[3:]
    for axis, shape in ((0, (-1, 1)), (1, (1, -1))):
        tap = torch.arange(slide.kernel[axis], device=x.device, dtype=x.dtype) * slide.dilation[axis]
        tap = tap.view(shape).expand(slide.kernel).reshape(-1, 1, 1)
        start = torch.arange(sizes[axis], device=x.device, dtype=x.dtype) * slide.stride[axis] - slide.pad[axis]
        points.append(offsets[:, :, axis] + tap + start.view(shape))
    # grid_sample expects (column, row), scaled so that -1 ... 1 spans the map from edge to edge
    edges = [(2 * point + 1) / size - 1 for point, size in zip(points[::-1], x.shape[:1:-1], strict=True)]
    grid = torch.stack(edges, -1).flatten(2, 3)
    maps = x.reshape(x.shape[0] * parts, x.shape[1] // parts, *x.shape[2:])
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
