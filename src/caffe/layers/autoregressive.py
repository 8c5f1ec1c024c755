"""Layers of autoregressive nets, which generate an image pixel by pixel: a pixel must not depend on later pixels."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from caffe.layers.base import Layer
from caffe.layers.convolution import Convolution, convolve
from caffe.layers.support.geometry import Slide, pad_axes
from caffe.proto import caffe_pb2

__all__ = ["MaskedConvolution"]

_A, _B = caffe_pb2.MaskedConvolutionParameter.A, caffe_pb2.MaskedConvolutionParameter.B


class MaskedConvolution(Convolution, bottoms=(1, None), tops=(1, None), options="convolution_param"):
    """Convolution that depends only on earlier cells in raster order, for autoregressive nets such as PixelCNN.

    bottom x (N, C, *sizes), top y (N, num_output, *sizes); options and blobs as for Convolution, and a mask

        y[n, o, p] = bias[o] + sum over c, k of mask[o, c, k] weight[o, c, k] x[n, c, p - pad + dilation k]

    mask A: the cells before p; mask B: also p.  `rows`: A the rows above that of p, B also its whole row.
    `colors`: channels and outputs are divided into that many equal parts; at p, A sees the colors before its own, B
    also its own.  stride must be 1, kernels odd, and pad dilation (kernel - 1) / 2, so that the mask's centre is on p.
    The fan-in of fillers includes masked weights.
    Source: van den Oord et al., arXiv:1601.06759 (PixelCNN), 1606.05328 (its rows).
    """

    more_options = ("masked_convolution_param",)

    def setup(self, *bottoms: Tensor) -> None:
        super().setup(*bottoms)
        self.masking: Any = self.spec.masked_convolution_param
        self.require(self.masking.HasField("mask"), "masked_convolution_param { mask: A or B } must be given")
        _check_window(self, self.slide)
        _check_mask(self, bottoms[0].shape[self.channel])

    def mask(self) -> Tensor:
        """Which weights count, as booleans that broadcast over the weight's shape."""
        kernel, device = self.slide.kernel, self.weight.device
        count, row = math.prod(kernel), kernel[-1]
        order, centre = torch.arange(count, device=device).view(kernel), count // 2
        own = self.masking.mask == _B
        if self.masking.rows:
            return order < centre - centre % row + row * own
        if self.masking.colors == 1:
            return order < centre + own
        sides = self.weight.shape[:2]
        mine, theirs = (torch.arange(side, device=device) * self.masking.colors // side for side in sides)
        allowed = theirs[None] < mine[:, None] + own
        return (order < centre) | ((order == centre) & allowed.view(*sides, *[1] * len(kernel)))

    def filter(self, x: Tensor) -> Tensor:
        # the rows of the kernel behind its centre are masked: they are cut off, with the padding that they would read
        slide, half = self.slide, self.slide.kernel[0] // 2
        weight = (self.weight * self.mask())[:, :, : half + 1]
        rest = [0] * (len(slide.kernel) - 1)
        x = pad_axes(x, [slide.pad[0], *rest], [0, *rest])
        upper = replace(slide, kernel=(half + 1, *slide.kernel[1:]), pad=(0, *slide.pad[1:]))
        return convolve(x, weight, self.bias, upper, self.group)


def _check_window(layer: Layer, slide: Slide) -> None:
    """Raise an error if the centre of the window is not the cell of the top."""
    axes = len(slide.kernel)
    layer.require(axes > 0, "the bottom has no spatial axes, expected at least one, which defines the order")
    layer.require(set(slide.stride) == {1}, f"stride {slide.stride} must be 1, so that each cell has a cell in the top")
    even = f"kernel_size {slide.kernel} must be odd on every axis, so that the mask has a centre"
    layer.require(all(size % 2 for size in slide.kernel), even)
    wanted = tuple(extent // 2 for extent in slide.extent)
    fact = f"pad {slide.pad} shifts the mask off the pixel; expected pad {wanted}, which keeps the bottom's size"
    layer.require(slide.pad == wanted, fact)


def _check_mask(layer: MaskedConvolution, channels: int) -> None:
    """Raise an error if the options of the mask contradict one another, or if nothing is seen."""
    colors, rows, kernel = layer.masking.colors, layer.masking.rows, layer.slide.kernel
    layer.require(colors > 0, "colors must be positive")
    if colors > 1:
        layer.require(not rows, "with rows: true, colors has no effect; remove one of them")
        layer.require(
            layer.group == 1, f"colors {colors} and group {layer.group}: the channels can be split in one way only"
        )
        for what, count in (("channels of the bottom", channels), ("num_output", layer.outputs)):
            layer.require(count % colors == 0, f"{count} {what} cannot be split into colors: {colors} equal parts")
    if rows:
        layer.require(len(kernel) > 1, "rows: true needs two spatial axes, the bottom has one")
    blind = layer.masking.mask == _A and colors == 1 and max(kernel[:-1] if rows else kernel) == 1
    layer.require(not blind, f"mask A over a kernel of {kernel} sees no cell; use a larger kernel, or mask B")
