"""Convolution, transposed convolution, and im2col, which turns both into matrix products."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe import torch_internals
from caffe.layers.base import Layer, Lowering, Records, is_exported, shape_text
from caffe.layers.support import processor
from caffe.layers.support.by_shape import ByShape
from caffe.layers.support.geometry import FAR, Slide, im2col, margins, pad_axes, read_slide

__all__ = [
    "Convolution",
    "ConvolutionDepthwise",
    "Deconvolution",
    "DepthwiseConvolution",
    "Im2col",
    "convolution_gradients",
    "is_convolution",
]


class _Filter(Layer, abstract=True):
    """Base of Convolution and Deconvolution: options, checks and blobs. The blobs are applied to every bottom."""

    lowering = Lowering.ALWAYS
    bias_axes: tuple[int, ...] = ()
    """Leading axes of size 1 in the shape of the bias."""
    weight: Tensor
    bias: Tensor | None

    def setup(self, *bottoms: Tensor) -> None:
        opt, x = self.opt, bottoms[0]
        self.require(
            len(self.spec.top) == len(bottoms), f"{len(bottoms)} bottoms need as many tops, got {len(self.spec.top)}"
        )
        for i, other in enumerate(bottoms):
            self.require(
                other.shape == x.shape,
                f"{self.bottom_name(i)} has shape {shape_text(other.shape)}, expected the first bottom's, "
                f"{shape_text(x.shape)}: all bottoms of the layer share its weights",
            )
        self.channel = self.channel_axis(x)
        self.slide = self.window(x.dim() - self.channel - 1)
        channels = x.shape[self.channel]
        self.require(channels > 0, f"{self.bottom_name(0)} has no channels, shape {shape_text(x.shape)}")
        self.outputs, self.group = self.counts(channels)
        self.check_size(x.shape[self.channel + 1 :])
        rows, columns = self.sides(channels)
        self.add_blob("weight", (rows, columns // self.group, *self.slide.kernel), opt.weight_filler)
        if opt.bias_term:
            self.add_blob("bias", (*self.bias_axes, self.outputs), opt.bias_filler)
        else:
            self.bias = None

    def channel_axis(self, x: Tensor) -> int:
        """The channel axis. All later axes are spatial."""
        return self.axis(self.opt.axis, x)

    def window(self, axes: int) -> Slide:
        """The window that the options describe, for this number of spatial axes."""
        return read_slide(self, axes)

    def counts(self, channels: int) -> tuple[int, int]:
        """The number of channels of the top, and the number of groups."""
        outputs, group = self.opt.num_output, self.opt.group
        self.require(outputs > 0, "num_output must be given and positive")
        self.require(group > 0, "group must be positive")
        for what, count in (("channels of the bottom", channels), ("num_output", outputs)):
            self.require(count % group == 0, f"{count} {what} cannot be split into group: {group} equal parts")
        return outputs, group

    def sides(self, channels: int) -> tuple[int, int]:
        """The size of the weights' first axis, and `group` times the size of the second."""
        raise NotImplementedError

    def check_size(self, sizes: tuple[int, ...]) -> None:
        """Raise an error if a bottom of these spatial sizes gives no top."""
        raise NotImplementedError

    def filter(self, x: Tensor) -> Tensor:
        """Apply the filters to one bottom: (N, C, *sizes) -> (N, num_output, *sizes')."""
        raise NotImplementedError

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        if self.channel == 1:
            return (self.filter(bottoms[0]),) if len(bottoms) == 1 else tuple([self.filter(x) for x in bottoms])
        tops = (self.filter(x.reshape(-1, *x.shape[self.channel :])) for x in bottoms)
        return tuple(y.view(*x.shape[: self.channel], *y.shape[1:]) for x, y in zip(bottoms, tops, strict=True))


class Convolution(_Filter, bottoms=(1, None), tops=(1, None)):
    """Cross-correlation of the bottom with learned filters, over any number of spatial axes.

    bottom x (N, C, *sizes), top y (N, num_output, *sizes'); further bottoms of the same shape give further tops
    sizes' = (sizes + 2 pad - dilation (kernel - 1) - 1) / stride + 1, divided towards zero

        y[n, o, p] = bias[o] + sum over c, k of weight[o, c, k] x[n, c, stride p - pad + dilation k]

    Blobs: weight (num_output, C / group, *kernel), bias (num_output).  `axis` is the channel axis; all axes before it
    are batch axes.  If the kernel exceeds the padded bottom by less than a stride, the cells beyond count as zeros.
    Source: BVLC base_conv_layer.cpp, conv_layer.cpp.
    """

    fills_weights = True
    records = Records.EACH
    forgets_top = True
    channels_last = True

    def sides(self, channels: int) -> tuple[int, int]:
        return self.outputs, channels

    def check_size(self, sizes: tuple[int, ...]) -> None:
        margins(self, self.slide, sizes)

    def setup(self, *bottoms: Tensor) -> None:
        super().setup(*bottoms)
        self._kernels: ByShape[Callable[..., Tensor]] = ByShape()

    def filter(self, x: Tensor) -> Tensor:
        return self._kernels.of(x, self._kernel)(x, self.weight, self.bias)

    def _kernel(self, shape: tuple[int, ...]) -> Callable[..., Tensor]:
        """The function of x, weight and bias for bottoms of this shape."""
        slide, group = self.slide, self.group
        lack = margins(self, slide, shape[2:])
        if any(lack):
            return lambda x, w, b: convolve(pad_axes(x, [0] * len(lack), lack), w, b, slide, group)
        kernel = kernel_for(slide, group, shape, self.outputs)
        return kernel or (lambda x, w, b: convolve(x, w, b, slide, group))


class DepthwiseConvolution(Convolution, bottoms=(1, None), tops=(1, None), options="convolution_param"):
    """Applies one filter to each channel: a Convolution with as many groups as channels.

    bottom x (N, C, *sizes), top y (N, C, *sizes'), sizes' as for Convolution

        y[n, c, p] = bias[c] + sum over k of weight[c, 0, k] x[n, c, stride p - pad + dilation k]

    Blobs: weight (C, 1, *kernel), bias (C), as in that Convolution. `group` and `num_output` are optional; if given,
    both must be C.
    Source: Howard et al., arXiv:1704.04861 (MobileNet); yonghenglh6/DepthwiseConvolution.
    """

    def counts(self, channels: int) -> tuple[int, int]:
        given = [name for name in ("num_output", "group") if self.opt.HasField(name)]
        for name in given:
            value = getattr(self.opt, name)
            if value != channels and (name, value) != ("group", 1):
                self.error(
                    f"{name} is {value} and the bottom has {channels} channels; expected equal numbers: each channel "
                    'has one filter of its own (for others write "Convolution" with group)'
                )
        return channels, channels


class ConvolutionDepthwise(DepthwiseConvolution, bottoms=(1, None), tops=(1, None), options="convolution_param"):
    """Another name of DepthwiseConvolution, which applies one filter to each channel.

    bottom x (N, C, *sizes), top y (N, C, *sizes'), options, blobs and equation as for DepthwiseConvolution

    Source: BVLC/caffe pull request 5665; farmingyard/caffe-mobilenet.
    """

    records = Records.EACH


class Deconvolution(_Filter, bottoms=(1, None), tops=(1, None), options="convolution_param"):
    """Transposed convolution: the forward pass is the backward pass of a Convolution with the same options.

    bottom x (N, C, *sizes), top y (N, num_output, *sizes'); further bottoms of the same shape give further tops
    sizes' = stride (sizes - 1) + dilation (kernel - 1) + 1 - 2 pad

        y[n, o, stride p - pad + dilation k] = bias[o] + sum over c, p, k of weight[c, o, k] x[n, c, p]

    Blobs: weight (C, num_output / group, *kernel), bias (num_output). The first axis of the weight is the input's.
    Source: Zeiler et al., CVPR 2010; BVLC deconv_layer.cpp.
    """

    fills_weights = True
    records = Records.EACH
    spreads = True
    forgets_top = True

    def sides(self, channels: int) -> tuple[int, int]:
        return channels, self.outputs

    def check_size(self, sizes: tuple[int, ...]) -> None:
        tops = [s * (n - 1) + e - 2 * p for n, s, e, p in self._axes(sizes)]
        if any(size < 1 for size in tops):
            self.error(
                f"pad {self.slide.pad} removes all of the top: a bottom of size {shape_text(sizes)} gives "
                f"{tuple(tops)}; use less pad"
            )

    def filter(self, x: Tensor) -> Tensor:
        self.check_size(x.shape[2:])
        return deconvolve(x, self.weight, self.bias, self.slide, self.group)

    def _axes(self, sizes: tuple[int, ...]) -> zip:
        return zip(sizes, self.slide.stride, self.slide.extent, self.slide.pad, strict=True)


class Im2col(Layer, options="convolution_param"):
    """Copies the cells of each window into channels, which turns a convolution into a matrix product.

    bottom x (N, C, *sizes), top y (N, C prod(kernel), *sizes'), sizes' as for Convolution

        y[n, (c, k), p] = x[n, c, stride p - pad + dilation k], zero outside the bottom

    Source: BVLC im2col_layer.cpp, util/im2col.cpp.
    """

    def setup(self, x: Tensor) -> None:
        self.channel = self.axis(self.opt.axis, x)
        self.slide = read_slide(self, x.dim() - self.channel - 1)
        margins(self, self.slide, x.shape[self.channel + 1 :])

    def forward(self, x: Tensor) -> Tensor:
        lack = margins(self, self.slide, x.shape[self.channel + 1 :])
        x = pad_axes(x, [0] * len(lack), lack)
        y = im2col(x.reshape(-1, *x.shape[self.channel :]), self.slide)
        return y.view(*x.shape[: self.channel], *y.shape[1:])


_FEW_PRODUCTS = 1 << 21
"""Convolutions of one item with at most this number of multiplications are matrix products by torch's own kernel."""
_FEW_POINTWISE = 1 << 24
"""The same for windows of 1 x 1 on processors of Intel, on which torch's library of products is fast."""


def is_convolution(layer: Any) -> bool:
    """Whether the layer is exactly a Convolution, under any of its names, and not a user's subclass."""
    return type(layer) in (Convolution, DepthwiseConvolution, ConvolutionDepthwise)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, slide: Slide, group: int) -> Tensor:
    """Convolution of x (N, C, *sizes) over any number of axes; torch has kernels for one to three axes."""
    axes = len(slide.kernel)
    if axes == 0:
        return F.conv1d(x[..., None], weight[..., None], bias, groups=group)[..., 0]
    slide = slide.clamped(x.shape[2:])
    if kernel := kernel_for(slide, group, x.shape, len(weight)):
        return kernel(x, weight, bias)
    columns = im2col(x, slide)
    y = F.conv1d(columns.flatten(2), weight.flatten(1)[..., None], bias, groups=group)
    return y.unflatten(2, columns.shape[2:])


def kernel_for(slide: Slide, group: int, shape: Sequence[int], outputs: int) -> Callable[..., Tensor] | None:
    """torch's convolution for bottoms of a shape, a function of x, weight and bias. None if torch has none."""
    axes = len(slide.kernel)
    if not 1 <= axes <= 3 or max(slide.stride) >= FAR:
        return None
    if shape[0] == group == 1 and slide.dilation == (1, 1) and not torch.compiler.is_compiling():
        products = shape[1] * outputs * math.prod(slide.kernel) * math.prod(slide.windows(shape[2:]))
        if products <= (_FEW_POINTWISE if processor.IS_INTEL and slide.kernel == (1, 1) else _FEW_PRODUCTS):
            return partial(_small, slide)
    run: Any = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    options = slide.stride, slide.pad, slide.dilation, group

    def kernel(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        learns = torch.is_grad_enabled() and bias is not None and bias.requires_grad
        if learns and x.is_cpu and not processor.IS_INTEL and not is_exported():
            y: Tensor = _SumForBias.apply(x, weight, bias, *options)
        else:
            y = run(x, weight, bias, *options)
        return y

    return kernel


def _small(slide: Slide, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution of few products: oneDNN's preparation would take longer than im2col and a matrix product."""
    if x.is_cpu and x.dtype == torch.float32 and not is_exported():
        return torch_internals.small_convolution(x, weight, bias, slide.kernel, slide.stride, slide.pad)
    return F.conv2d(x, weight, bias, slide.stride, slide.pad)


def convolution_gradients(
    dy: Tensor, x: Tensor, weight: Tensor, options: Sequence[Any], wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of x, weight and bias, those that are `wanted`. `options` are those of `torch.convolution`.

    oneDNN computes the gradient of the bias together with that of the weights. On processors that are not Intel's it
    then takes up to twice as long for both, so that a separate sum is faster.
    """
    at_once = processor.IS_INTEL and wanted[2]
    sizes, mask = [len(weight)] if at_once else None, [*wanted[:2], at_once]
    dx, dw, db = torch.ops.aten.convolution_backward(dy, x, weight, sizes, *options, mask)
    return dx, dw, dy.sum((0, *range(2, dy.dim()))) if wanted[2] and not at_once else db


class _SumForBias(torch.autograd.Function):
    """A convolution whose gradients are those of `convolution_gradients`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, *options: Any) -> Tensor:
        stride, pad, dilation, group = options
        ctx.save_for_backward(x, weight)
        ctx.options = stride, pad, dilation, False, (0,) * len(stride), group
        return torch.convolution(x, weight, bias, *ctx.options)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        return *convolution_gradients(dy, x, weight, ctx.options, ctx.needs_input_grad[:3]), None, None, None, None


def deconvolve(x: Tensor, weight: Tensor, bias: Tensor | None, slide: Slide, group: int) -> Tensor:
    """Transposed convolution of x (N, C, *sizes) over any number of axes; torch has kernels for one to three.

    For more axes, and for strides of `FAR` or more, zeros are inserted between the cells of x, `stride` apart, and the
    result is convolved with the mirrored kernel.
    """
    axes = len(slide.kernel)
    if axes == 0:
        return F.conv_transpose1d(x[..., None], weight[..., None], bias, groups=group)[..., 0]
    if max(slide.stride) >= FAR:  # the stride has no effect on an axis with one cell
        slide = replace(slide, stride=tuple(1 if n == 1 else s for s, n in zip(slide.stride, x.shape[2:], strict=True)))
    if axes <= 3 and max(slide.stride) < FAR:
        apply = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
        return apply(x, weight, bias, slide.stride, slide.pad, 0, group, slide.dilation)
    spread = x.new_zeros(*x.shape[:2], *(s * (n - 1) + 1 for s, n in zip(slide.stride, x.shape[2:], strict=True)))
    places: Any = (..., *(slice(None, None, s) for s in slide.stride))
    spread[places] = x
    mirrored = weight.flip(list(range(2, 2 + axes))).unflatten(0, (group, -1)).transpose(1, 2).flatten(0, 1)
    margin = [e - 1 - p for e, p in zip(slide.extent, slide.pad, strict=True)]
    cut, pad = [min(m, 0) for m in margin], tuple(max(m, 0) for m in margin)
    spread = pad_axes(spread, cut, cut)
    return convolve(spread, mirrored, bias, Slide(slide.kernel, (1,) * axes, pad, slide.dilation), group)
