"""Layers of pruned nets, whose weights are multiplied by masks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from caffe.layers.base import Layer, shape_text
from caffe.layers.convolution import Convolution, DepthwiseConvolution, convolve
from caffe.layers.dense import InnerProduct
from caffe.layers.support.exact import is_exact, tell
from caffe.layers.support.geometry import margins, pad_axes
from caffe.layers.support.products import linear
from caffe.proto import caffe_pb2

__all__ = ["CConvolution", "CConvolutionDepthwise", "CInnerProduct"]


class _Masked(torch.autograd.Function):
    """w m with a gradient for w that ignores m, so that masked weights are trained too."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, m: Tensor) -> Tensor:
        return w * m

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def masked(w: Tensor, m: Tensor) -> Tensor:
    """Apply `_Masked`. In a gradient check the gradient is exact, and the deviation is reported."""
    if is_exact():
        tell("the gradient ignores the masks")
        return w * m
    made: Tensor = _Masked.apply(w, m.to(w.dtype))
    return made


def _read(layer: Layer, own: str, plain: str) -> None:
    """Read the sizes from the field `plain` or from `own`. Options that change the masks raise an error."""
    param = getattr(layer.spec, own)
    here = param.HasField("num_output")
    both = here and layer.spec.HasField(plain)
    layer.require(not both, f"has sizes in {own} and in {plain}; keep one")
    if here:
        made = getattr(caffe_pb2.LayerParameter(), plain)
        for field, value in param.ListFields():
            if field.name in made.DESCRIPTOR.fields_by_name:
                if field.is_repeated:
                    getattr(made, field.name).extend(value)
                elif field.message_type is not None:
                    getattr(made, field.name).CopyFrom(value)
                else:
                    setattr(made, field.name, value)
        layer.opt = made
    changes = layer.phase == caffe_pb2.TRAIN and param.iter_stop > 0
    layer.require(not changes, "iter_stop above 0 prunes while training, which is not implemented; set iter_stop: 0")


class CConvolution(Convolution, bottoms=(1, None), tops=(1, None), options="convolution_param"):
    """Convolution whose weights and bias are multiplied by masks.

    bottom x (N, C, *sizes), top y, options and sizes as for Convolution; cconvolution_param may hold the options

        y = convolution of x with weight weight_mask, plus bias bias_mask

    Blobs: weight, bias, weight_mask, bias_mask; or weight, weight_mask. The masks are constant. The gradients of weight
    and bias ignore the masks, as in the source. gamma, power and c_rate, which change masks in TRAIN up to iter_stop,
    have no effect. Source: Guo et al., arXiv:1608.04493 (dynamic network surgery), cconv_layer.cpp.
    """

    more_options = ("cconvolution_param",)
    weight_mask: Tensor
    bias_mask: Tensor
    masks = "cconvolution_param"

    def setup(self, *bottoms: Tensor) -> None:
        _read(self, self.masks, "convolution_param")
        super().setup(*bottoms)
        add_masks(self, getattr(self.spec, self.masks))

    def filter(self, x: Tensor) -> Tensor:
        lack = margins(self, self.slide, x.shape[2:])
        x = pad_axes(x, [0] * len(lack), lack)
        bias = None if self.bias is None else masked(self.bias, self.bias_mask)
        return convolve(x, masked(self.weight, self.weight_mask), bias, self.slide, self.group)


class CConvolutionDepthwise(CConvolution, DepthwiseConvolution, bottoms=(1, None), tops=(1, None)):
    """DepthwiseConvolution whose weights and bias are multiplied by masks, as in CConvolution.

    bottom x (N, C, *sizes), top y (N, C, *sizes'), blobs and equation as for CConvolution; cconv_depthwise_param

    Source: NHZlX's fork for deep compression, cconv_dw_layer.cpp.
    """

    options = "convolution_param"
    more_options = ("cconv_depthwise_param",)
    masks = "cconv_depthwise_param"


class CInnerProduct(InnerProduct, options="inner_product_param"):
    """InnerProduct whose weights and bias are multiplied by masks.

    bottom x, top y and options as for InnerProduct; cinner_product_param may hold the options

        y = (weight weight_mask) x + bias bias_mask

    Blobs, masks, gradients and options without effect are as for CConvolution.
    Source: Guo et al., arXiv:1608.04493 (dynamic network surgery), cinner_product_layer.cpp.
    """

    more_options = ("cinner_product_param",)
    weight_mask: Tensor
    bias_mask: Tensor

    def setup(self, x: Tensor) -> None:
        _read(self, "cinner_product_param", "inner_product_param")
        super().setup(x)
        add_masks(self, self.spec.cinner_product_param)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(self.start)
        if flat.shape[-1] != self.inputs:
            fact = f"{self.bottom_name(0)} has shape {shape_text(x.shape)}"
            self.error(f"{fact}; the weights are for {self.inputs} inputs")
        weight = masked(self.weight, self.weight_mask)
        bias = None if self.bias is None else masked(self.bias, self.bias_mask)
        return linear(flat, weight.t() if self.opt.transpose else weight, bias)


def add_masks(layer: Any, param: Any) -> None:
    """Declare the masks of the weight and, if there is one, of the bias."""
    for name in ("weight", "bias"):
        blob = getattr(layer, name)
        if blob is not None:
            layer.add_blob(f"{name}_mask", blob.shape, getattr(param, f"{name}_mask_filler"), trained=False)
