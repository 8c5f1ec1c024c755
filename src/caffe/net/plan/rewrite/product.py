"""A Convolution, Deconvolution or InnerProduct fused with the layers after it into one kernel, for inference."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe import torch_internals
from caffe.layers.base import Layer
from caffe.layers.convolution import Deconvolution, convolve, deconvolve, is_convolution
from caffe.layers.dense import InnerProduct
from caffe.layers.normalization import BatchNorm
from caffe.layers.support import processor
from caffe.layers.support.geometry import margins, pad_axes
from caffe.parameter_memory import WeightWatch

__all__ = ["FusedProduct", "is_plain"]

_LAST = torch.channels_last
_FEW_WEIGHTS = 2**20  # of an InnerProduct: for one row, oneDNN's preparation takes longer than the product
_SHAPES = 8
"""The number of bottom shapes for which a kernel is kept."""
_KEPT_WEIGHTS = 2**17
"""With more weights than this, only the kernel for the last shape is kept."""
_FEW_PRODUCTS = 2**19  # of a convolution: oneDNN's preparation takes longer than the convolution
_FEW_POINTWISE = 2**23  # of a convolution with windows of 1 x 1, on processors of Intel


@dataclass(eq=False, repr=False)
class FusedProduct:
    """A layer whose weights are prepared once, as a kernel `y = act(scaled(layer(x)) + other)`.

    `scales` are the BatchNorm and Scale layers after it, which are folded into its weights and bias. `slope` is the
    slope of the ReLU after them, None for no ReLU. `adds`: a second bottom is added before the ReLU. `over`: the result
    may overwrite that bottom. If only some cells of the top are needed, `slide` replaces the layer's window, and
    `every` is the step between the needed cells of the second bottom, for each axis.
    On the CPU the kernel is oneDNN's, with weights in the order that it prefers for the bottom's shape; elsewhere
    torch's.
    """

    layer: Any
    scales: tuple[Layer, ...] = ()
    slope: float | None = None
    adds: bool = False
    over: bool = False
    slide: Any = None
    every: tuple[int, ...] = ()
    dtype: torch.dtype | None = None
    """The type of the folded weight and bias."""
    careful: bool = field(init=False, default=False)
    """Whether the ReLU must preserve NaN, which oneDNN's ReLU turns into 0."""
    _kernels: dict[tuple[tuple[int, ...], bool], Callable[..., Tensor]] = field(init=False, default_factory=dict)
    _finite: bool = field(init=False, default=True)
    _weight_watch: WeightWatch = field(init=False)
    _weights: tuple[Tensor, Tensor | None] = field(init=False)

    def __post_init__(self) -> None:
        self.slide = self.slide or getattr(self.layer, "slide", None)
        self._weight_watch = WeightWatch(
            [blob.weights for layer in (self.layer, *self.scales) for blob in layer.param_blobs]
        )

    def refresh(self) -> bool:
        """Fold the weights again if they changed. Returns whether all are finite."""
        if self._weight_watch.changed():
            weight, bias = self.folded()
            dtype = self.dtype or weight.dtype
            self._weights = weight.to(dtype), None if bias is None else bias.to(dtype)
            self._kernels.clear()
            self._finite = all(math.isfinite(blob.sum()) for blob in self._weights if blob is not None)
        return self._finite

    def __call__(self, x: Tensor, *other: Tensor) -> Tensor:
        """Compute the top. Call `refresh` before."""
        kernel = self._kernels.get((x.shape, self.careful)) or self._new_kernel(x)
        if self.every:
            cells: Any = (..., *(slice(None, None, step) for step in self.every))
            other = tuple(y[cells] for y in other)
        return kernel(x, *other)

    def _new_kernel(self, x: Tensor) -> Callable[..., Tensor]:
        """Make the kernel for x's shape, and add it to the kernels of earlier shapes, if it does not hold too much.

        Each kernel may hold a copy of the weights in another order.
        """
        weight = self._weights[0]
        (top,) = self.layer.infer(torch.empty(x.shape, device="meta"))  # also raises the layer's errors
        kernel = self._make(x, *self._weights, top.numel() * weight[0].numel())
        if len(self._kernels) >= (_SHAPES if weight.numel() <= _KEPT_WEIGHTS else 1):
            self._kernels.clear()
        self._kernels[x.shape, self.careful] = kernel
        return kernel

    def _make(self, x: Tensor, weight: Tensor, bias: Tensor | None, products: int) -> Callable[..., Tensor]:
        if one_dnn(x, weight) and not (self.careful and self.slope is not None):
            if type(self.layer) is InnerProduct and self.layer.start == 1:
                if len(x) > 1 or weight.numel() > _FEW_WEIGHTS:
                    return self._dense(x, weight, bias)
            elif is_convolution(self.layer) and x.dim() == 4 and self.slide.is_plain(x.shape[2:]):
                one = self.layer.group == 1 and self.slide.dilation == (1, 1) and x.shape[1] > 1
                few = _FEW_POINTWISE if processor.IS_INTEL and self.slide.kernel == (1, 1) else _FEW_PRODUCTS
                small = one and products <= few and x.dtype == torch.float32
                return (self._small_convolution if small else self._convolution)(x, weight, bias)
        return lambda x, *other: self._finish(plain(self.layer, self.slide, x, weight, bias), *other)

    def _convolution(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Callable[..., Tensor]:
        slide: Any = self.slide
        where = list(slide.pad), list(slide.stride), list(slide.dilation), self.layer.group
        weight = torch_internals.reorder_convolution_weight(weight.contiguous(), *where, list(x.shape))
        name, numbers = self._activation()
        if not self.adds:
            run = torch_internals.convolution_pointwise[0]
            return lambda x: run(x.contiguous(memory_format=_LAST), weight, bias, *where, name, numbers, "")
        # a kernel with a sum supports only the plain ReLU: a leaky one is a separate operation
        end: tuple[Any, ...] = ("add", 1.0, name if name == "relu" else None, [], "")
        over, ways = self.over, (torch_internals.convolution_pointwise[1], torch_internals.convolution_pointwise_)
        add = ways[over]

        def kernel(x: Tensor, other: Tensor) -> Tensor:
            x, other = x.contiguous(memory_format=_LAST), other.contiguous(memory_format=_LAST)
            y: Tensor = add(*((other, x) if over else (x, other)), weight, bias, *where, *end)
            return F.leaky_relu_(y, *numbers) if name == "leaky_relu" else y

        return kernel

    def _small_convolution(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Callable[..., Tensor]:
        slide: Any = self.slide
        weight = weight.contiguous(memory_format=_LAST)
        where = bias, list(slide.kernel), list(slide.stride), list(slide.pad)
        run = torch_internals.small_convolution
        return lambda x, *other: self._finish(run(x.contiguous(memory_format=_LAST), weight, *where), *other)

    def _dense(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Callable[..., Tensor]:
        weight = weight.t() if self.layer.opt.transpose else weight
        rows, last = (
            len(x),
            len(x) > 1 and x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=_LAST),
        )
        if last:  # weights in the order of the bottom avoid a copy of the bottom
            weight = weight.unflatten(1, x.shape[1:]).permute(0, 2, 3, 1).flatten(1)
        if rows > 1 or not weight.is_contiguous():  # for one row the stored order is as fast
            weight = torch_internals.reorder_linear_weight(weight.contiguous(), rows)
        run = torch_internals.linear_pointwise
        name, numbers = ("none", []) if self.adds else self._activation()

        def kernel(x: Tensor, *other: Tensor) -> Tensor:
            flat = (x.permute(0, 2, 3, 1) if last else x).reshape(rows, -1).contiguous()
            y = run(flat, weight, bias, name, numbers, "")
            return self._finish(y, *other) if other else y

        return kernel

    def _activation(self) -> tuple[str, list[float]]:
        if self.slope is None:
            return "none", []
        return ("leaky_relu", [self.slope]) if self.slope else ("relu", [])

    def _finish(self, y: Tensor, *other: Tensor) -> Tensor:
        if other:
            y = y.add_(other[0])
        if self.slope is None:
            return y
        return F.leaky_relu_(y, self.slope) if self.slope else y.relu_()

    @torch.no_grad()
    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the layer with all `scales` folded in."""
        layer = self.layer
        weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
        if not self.scales:
            return weight, bias
        count = layer.outputs
        scale = torch.ones(count, dtype=torch.float64, device=weight.device)
        shift = torch.zeros_like(scale) if bias is None else bias.double()
        for part in self.scales:
            factor, offset = coefficients(part)
            scale, shift = scale * factor, shift * factor + offset
        return scaled(layer, weight, scale.to(weight.dtype)), shift.to(weight.dtype)


def coefficients(layer: Any) -> tuple[Tensor, Tensor | float]:
    """A BatchNorm with running statistics or a channel-wise Scale as y = factor x + offset, in double precision."""
    if isinstance(layer, BatchNorm):
        mean, variance = (blob.double() for blob in layer.running())
        factor = (variance + layer.opt.eps).rsqrt()
        if layer.scaled:
            factor = factor * layer.scale.double()
        return factor, (layer.bias.double() if layer.scaled and layer.opt.bias_term else 0.0) - mean * factor
    return layer.weight.double(), layer.bias.double() if layer.opt.bias_term else 0.0


def scaled(layer: Any, weight: Tensor, scale: Tensor) -> Tensor:
    """The weight with the part of each output multiplied by the output's scale."""
    if type(layer) is Deconvolution:  # (C, outputs / group, *kernel): the outputs of a group lie on axis 1
        grouped = weight.unflatten(0, (layer.group, -1))
        each = scale.view(layer.group, 1, -1, *[1] * (weight.dim() - 2))
        return (grouped * each).flatten(0, 1)
    if type(layer) is InnerProduct and layer.opt.transpose:
        return weight * scale
    return weight * scale.view(-1, *[1] * (weight.dim() - 1))


def one_dnn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN's kernels support x and the weight."""
    backend = torch.backends.mkldnn
    usable = x.device.type == "cpu" and backend.is_available() and bool(backend.enabled)
    return usable and torch_internals.onednn_takes(x.dtype) and x.dtype == weight.dtype


def is_plain(call: Any) -> bool:
    """Whether a call runs a single layer that a FusedProduct can replace."""
    layer = call.layer
    if len(call.reads) != 1 or len(call.writes) != 1 or call.run != layer.forward:
        return False
    return type(layer) is InnerProduct or (
        (is_convolution(layer) or type(layer) is Deconvolution) and layer.channel == 1
    )


def plain(layer: Any, slide: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply the layer with another window and other weights."""
    if type(layer) is InnerProduct:
        return F.linear(x.flatten(layer.start), weight.t() if layer.opt.transpose else weight, bias)
    if type(layer) is Deconvolution:
        return deconvolve(x, weight, bias, slide, layer.group)
    lack = margins(layer, slide, x.shape[2:])
    return convolve(pad_axes(x, [0] * len(lack), lack), weight, bias, slide, layer.group)
