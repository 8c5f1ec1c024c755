"""Layers that multiply by learned arrays or add them: InnerProduct, Embed, Scale, Bias."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe.layers.base import Effects, Layer, Lowering, Records, shape_text
from caffe.layers.support.products import linear
from caffe.proto import caffe_pb2

__all__ = ["Bias", "Embed", "InnerProduct", "Scale"]


class InnerProduct(Layer):
    """Fully connected layer: each output is a weighted sum of all inputs.

    bottom x (N, ..., *inputs), top y (N, ..., num_output); the axes from `axis` on are flattened to K inputs

        y = W x + bias

    Blobs: weight W (num_output, K), or (K, num_output) with `transpose`; bias (num_output).
    Source: BVLC inner_product_layer.cpp.
    """

    fills_weights = True
    records = Records.EACH
    forgets_top = True
    lowering = Lowering.ALWAYS
    weight: Tensor
    bias: Tensor | None

    def setup(self, x: Tensor) -> None:
        opt = self.opt
        self.require(opt.num_output > 0, "num_output must be given and positive")
        self.outputs = opt.num_output
        self.start = self.axis(opt.axis, x)
        self.inputs = x.shape[self.start :].numel()
        shape = (opt.num_output, self.inputs)
        self.add_blob("weight", shape[::-1] if opt.transpose else shape, opt.weight_filler)
        if opt.bias_term:
            self.add_blob("bias", (opt.num_output,), opt.bias_filler)
        else:
            self.bias = None

    def forward(self, x: Tensor) -> Tensor:
        return linear(self.rows(x), self.weight.t() if self.opt.transpose else self.weight, self.bias)

    def rows(self, x: Tensor) -> Tensor:
        """The bottom as rows of K inputs: (N, ..., K)."""
        flat = x.flatten(self.start)
        if flat.shape[-1] != self.inputs:
            self.error(
                f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, {flat.shape[-1]} inputs from axis "
                f"{self.start} on, and the weights are for {self.inputs}; keep that size, or build a new net"
            )
        return flat


class Embed(Layer):
    """Looks up a row of the weights for each index: an InnerProduct with a one-hot bottom.

    bottom i (any shape) of indices 0 ... input_dim - 1, top y (*shape of i, num_output)

        y = weight[i] + bias

    Blobs: weight (input_dim, num_output), bias (num_output).  The indices get no gradient.
    Source: BVLC embed_layer.cpp.
    """

    fills_weights = True
    records = Records.EACH
    constant = (0,)
    effects = Effects.CHECKS  # the range of indices
    weight: Tensor
    bias: Tensor

    def setup(self, index: Tensor) -> None:
        opt = self.opt
        self.require(opt.num_output > 0, "num_output must be given and positive")
        self.require(opt.input_dim > 0, "input_dim, the number of different indices, must be given and positive")
        self.add_blob("weight", (opt.input_dim, opt.num_output), opt.weight_filler)
        if opt.bias_term:
            self.add_blob("bias", (opt.num_output,), opt.bias_filler)

    def forward(self, index: Tensor) -> Tensor:
        try:
            y = F.embedding(index.long(), self.weight)
        except IndexError:
            low, high = index.min().item(), index.max().item()
            self.error(f"indices reach from {low:g} to {high:g}, expected 0 to input_dim - 1 = {len(self.weight) - 1}")
        return y + self.bias if self.opt.bias_term else y


class Bias(Layer, bottoms=(1, 2)):
    """Adds an array to the bottom, broadcast over the axes that the array does not have.

    bottom x; b, a second bottom or the blob, whose shape is `num_axes` axes of x from `axis` on; top y of x's shape

        y = x + b

    Blob, if there is one bottom: bias. `num_axes` -1 means all axes to the end, 0 a single number.
    Source: BVLC bias_layer.cpp.
    """

    records = Records.EACH
    lowering = Lowering.FOLLOW
    bias: Tensor
    start: int

    def setup(self, x: Tensor, b: Tensor | None = None) -> None:
        self.start = operand_axis(self, x, b)
        if b is None:
            self.add_blob("bias", operand_shape(self, x), self.opt.filler)
        else:
            aligned(self, x, b)

    def forward(self, x: Tensor, b: Tensor | None = None) -> Tensor:
        return x + aligned(self, x, self.bias if b is None else b)


class Scale(Layer, bottoms=(1, 2)):
    """Multiplies the bottom by an array, broadcast over the axes that the array does not have, and may add a bias.

    bottom x; s, a second bottom or the blob, whose shape is `num_axes` axes of x from `axis` on; top y of x's shape

        y = s x + bias

    Blobs: weight s, only with one bottom, 1 by default; bias with `bias_term`, of the shape of s.
    `num_axes` -1 means all axes to the end, 0 a single number.
    Source: BVLC scale_layer.cpp.
    """

    records = Records.EACH
    forgets_top = True
    lowering = Lowering.FOLLOW
    weight: Tensor
    bias: Tensor
    start: int

    def setup(self, x: Tensor, s: Tensor | None = None) -> None:
        opt = self.opt
        self.start = operand_axis(self, x, s)
        if s is None:
            one = caffe_pb2.FillerParameter(type="constant", value=1)
            self.add_blob("weight", operand_shape(self, x), opt.filler if opt.HasField("filler") else one)
        else:
            aligned(self, x, s)
        if opt.bias_term:
            self.add_blob("bias", (self.weight if s is None else s).shape, opt.bias_filler)

    def forward(self, x: Tensor, s: Tensor | None = None) -> Tensor:
        scale = aligned(self, x, self.weight if s is None else s)
        if not self.opt.bias_term:
            return x * scale
        if s is None and self.start == 1 and self.weight.dim() == 1:  # one pass: a normalization by mean 0, variance 1
            zeros, ones = torch.zeros_like(self.bias), torch.ones_like(self.bias)
            return torch.batch_norm(x, self.weight, self.bias, zeros, ones, False, 0.0, 0.0, False)
        return x * scale + aligned(self, x, self.bias)


def operand_axis(layer: Layer, x: Tensor, operand: Tensor | None) -> int:
    """The axis of x at which the array of a Scale or Bias layer begins; 0 for a single number."""
    if operand is not None and operand.dim() == 0:
        return 0
    return layer.axis(layer.opt.axis, x)


def operand_shape(layer: Layer, x: Tensor) -> tuple[int, ...]:
    """The shape of the blob of a Scale or Bias layer: `num_axes` axes of x from `axis` on."""
    start, axes = layer.axis(layer.opt.axis, x), layer.opt.num_axes
    layer.require(axes >= -1, f"num_axes {axes} must be 0 or more, or -1 for all axes to the end")
    layer.require(
        start + axes <= x.dim(),
        f"{axes} axes from axis {start} on reach beyond {layer.bottom_name(0)} of shape {shape_text(x.shape)}",
    )
    return tuple(x.shape[start:] if axes == -1 else x.shape[start : start + axes])


def aligned(layer: Bias | Scale, x: Tensor, operand: Tensor) -> Tensor:
    """`operand` in x's type, with trailing axes of size 1, so that it broadcasts over x from the layer's axis on."""
    start, axes = layer.start, operand.dim()
    if x.shape[start : start + axes] != operand.shape:
        layer.error(
            f"an array of shape {shape_text(operand.shape)} cannot be broadcast to {layer.bottom_name(0)} of shape "
            f"{shape_text(x.shape)} from axis {start} on; make the sizes equal or change axis"
        )
    return operand.to(x.dtype).reshape(*operand.shape, *(1,) * (x.dim() - start - axes))
