"""Normalizations of forks by the statistics of one item: GroupNorm, LayerNorm, InstanceNorm."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from caffe.layers.base import Layer, shape_text
from caffe.proto import caffe_pb2

__all__ = ["GroupNorm", "InstanceNorm", "LayerNorm"]

_ONES = caffe_pb2.FillerParameter(value=1)


class GroupNorm(Layer):
    """Normalizes groups of consecutive channels of each item to mean 0 and variance 1.

    bottom x (N, C, ...), top y of the same shape

        y = (x - mean) / sqrt(variance + eps), both over C / G channels and all cells; scaled: y scale[c] + bias[c]

    Three forks have this layer, with different fields. group_num (default 32; blankWorld) or group_ratio
    (niezhongliang) is G, and there are no blobs. group (hujie) is G with the blobs scale, bias (1, C, 1, 1), also if
    only scale_filler or bias_filler is given. Setting two of the three fields is an error.
    Source: Wu and He, arXiv:1803.08494; blankWorld/GroupNorm-caffe, niezhongliang/GroupNormalization-caffe.
    """

    scale: Tensor
    bias: Tensor

    def setup(self, x: Tensor) -> None:
        opt = self.opt
        self.require(x.dim() > 1, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, ...)")
        names = [name for name in ("group_num", "group_ratio", "group") if opt.HasField(name)]
        fact = f"has {' and '.join(names)}, which are three forks' names for the same number; keep one"
        self.require(len(names) < 2, f"{fact}: group adds a learned scale and bias")
        filled = opt.HasField("scale_filler") or opt.HasField("bias_filler")
        self.scaled = filled or "group" in names
        fact = "scale_filler and bias_filler belong to the fork whose number of groups is called group; use that name"
        self.require(not filled or names in ([], ["group"]), fact)
        self.groups = getattr(opt, names[0] if names else "group_num")
        fact = f"cannot divide the {x.shape[1]} channels of {self.bottom_name(0)} into {self.groups} groups"
        self.require(self.groups > 0 and x.shape[1] % self.groups == 0, fact)
        if self.scaled:
            shape = (1, x.shape[1], 1, 1)
            self.add_blob("scale", shape, opt.scale_filler if opt.HasField("scale_filler") else _ONES)
            self.add_blob("bias", shape, opt.bias_filler if opt.HasField("bias_filler") else None)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(len(x), self.groups, -1)
        y = normalized(rows, self.opt.eps).view(x.shape)
        if not self.scaled:
            return y
        each = (-1, *[1] * (x.dim() - 2))
        return y * self.scale.reshape(each) + self.bias.reshape(each)


class LayerNorm(Layer):
    """Normalizes each item to mean 0 and variance 1 over all its elements.

    bottom x (N, ...), top y of the same shape

        y = (x - mean) / sqrt(variance + eps);  with elementwise_affine y scale + bias

    Blobs, unless elementwise_affine is false: scale, bias of the shape of an item, first 1 and 0. Synopsys' Caffe has
    them; fengyang0317's fork, where eps is the only option, has none: write elementwise_affine: false for its weights.
    Other frameworks often normalize over the last axis only; this layer does not.
    Source: Ba et al., arXiv:1607.06450; Synopsys' Caffe, layer_norm_layer.cpp.
    """

    scale: Tensor
    bias: Tensor

    def setup(self, x: Tensor) -> None:
        self.require(x.dim() > 1, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, ...)")
        if self.opt.elementwise_affine:
            self.add_blob("scale", x.shape[1:], _ONES)
            self.add_blob("bias", x.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        y = normalized(x.flatten(1), self.opt.eps).view(x.shape)
        return y * self.scale + self.bias if self.opt.elementwise_affine else y


class InstanceNorm(Layer):
    """Normalizes each channel of each item to mean 0 and variance 1.

    bottom x (N, C, H, W), top y of the same shape

        y = (x - mean) / sqrt(variance + 0.0001)

    The layer has no options and no blobs; use a Scale layer after it to learn scale and bias.
    Source: Ulyanov et al., arXiv:1607.08022; a public instance_norm_layer.cpp with this constant.
    """

    def setup(self, x: Tensor) -> None:
        self.require(x.dim() > 2, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, H, W)")

    def forward(self, x: Tensor) -> Tensor:
        return normalized(x.flatten(2), 1e-4).view(x.shape)


def normalized(rows: Tensor, eps: float) -> Tensor:
    """Normalize `rows` (..., K) to mean 0 and variance 1 along the last axis."""
    return F.layer_norm(rows, rows.shape[-1:], eps=eps)
