"""Batch normalization of SegNet and PSPNet, and lengths over channels: layers of forks."""

from __future__ import annotations

import torch
from torch import Tensor

from caffe.layers.base import Effects, Layer, shape_text
from caffe.layers.support.batch_norm import batch_norm
from caffe.proto import caffe_pb2

__all__ = ["BN", "GRN", "ChannelNorm"]

SEGNET = ("scale_filler", "shift_filler", "bn_mode")
PSPNET = ("slope_filler", "bias_filler", "momentum", "eps", "frozen", "engine")
PARSENET = ("var_eps", "moving_average", "decay", "across_spatial")
INFERENCE = caffe_pb2.BNParameter.INFERENCE


class _Kinds(Layer, abstract=True):
    """Base of BN: finds which fork's layer is meant, and which statistics it uses."""

    running: bool
    """Whether this is PSPNet's layer, which keeps running statistics."""

    @property
    def effects_now(self) -> Effects:
        return self.effects if self.running and self.by_batch else Effects.NONE

    @property
    def by_batch(self) -> bool:
        """Whether the layer normalizes with the mean and variance of the batch."""
        if not self.running:
            return bool(self.opt.bn_mode != INFERENCE)
        return self.training and not self.opt.frozen

    def tell_apart(self, x: Tensor) -> None:
        """Find which fork's layer the options belong to. Options of both forks, or of neither, are an error."""
        self.require(x.dim() > 1, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, ...)")
        given = [[name for name in names if self.opt.HasField(name)] for names in (SEGNET, PSPNET, PARSENET)]
        self.require(not given[2], f"{', '.join(given[2])} belongs to ParseNet's BN, which is not implemented")
        fact = f"{', '.join(given[0])} belongs to SegNet's BN, {', '.join(given[1])} to PSPNet's; keep one kind"
        self.require(not (given[0] and given[1]), fact)
        self.running = bool(given[1]) or len(self.spec.param) > 2
        self.require(not (given[0] and len(self.spec.param) > 2), "SegNet's BN has two blobs; give two param blocks")
        fact = "is SegNet's with bn_param { bn_mode: ... }, PSPNet's with bn_param { frozen: ... }; give one of them"
        self.require(self.running or bool(given[0]), fact)
        self.require(self.opt.eps > 0, f"eps is {self.opt.eps:g}, expected a number above 0")
        rates = all(param.lr_mult == 0 for param in self.spec.param[2:])
        self.require(rates, "mean and variance are not trained; set lr_mult: 0 in its third and fourth param block")


class BN(_Kinds):
    """Batch normalization with a learned scale: SegNet's layer, or PSPNet's and TSN's. The options decide which.

    bottom x (N, C, ...), top y of the same shape; blobs are (1, C, 1, 1)

    SegNet (scale_filler, shift_filler, bn_mode), blobs scale, shift; E and Var of the batch in TRAIN and in TEST:
        LEARN  y = scale (x - E) / sqrt(Var + 1e-9) + shift        INFERENCE  y = scale x + shift
    PSPNet, TSN (slope_filler, bias_filler, momentum, eps, frozen), blobs slope, bias; not trained: mean, variance:
        y = slope (x - E) / sqrt(Var + eps) + bias, E and Var of the batch; or mean and variance, in TEST or if frozen
        mean <- momentum mean + (1 - momentum) E, variance likewise, where y uses the batch's E and Var
    If none of these options is set, more than two param blocks mean PSPNet's layer.
    Source: Badrinarayanan et al., arXiv:1511.00561; Zhao et al., arXiv:1612.01105; Wang et al., arXiv:1608.00859.
    """

    effects = Effects.BUFFERS
    scale: Tensor
    shift: Tensor
    mean: Tensor
    variance: Tensor

    def setup(self, x: Tensor) -> None:
        self.tell_apart(x)
        shape, first = (1, x.shape[1], 1, 1), "slope_filler" if self.running else "scale_filler"
        ones = caffe_pb2.FillerParameter(value=1)
        self.add_blob("scale", shape, getattr(self.opt, first) if self.opt.HasField(first) else ones)
        self.add_blob("shift", shape, self.opt.bias_filler if self.running else self.opt.shift_filler)
        if self.running:
            self.add_blob("mean", shape, trained=False)
            self.add_blob("variance", shape, ones, trained=False)

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.scale.flatten(), self.shift.flatten()
        if not self.running:
            if not self.by_batch:
                each = (-1, *[1] * (x.dim() - 2))
                return x * scale.view(each) + shift.view(each)
            return batch_norm(x, scale, shift, None, None, True, 1e-9)
        if not self.by_batch:
            return batch_norm(x, scale, shift, self.mean.flatten(), self.variance.flatten(), False, self.opt.eps)
        y = batch_norm(x, scale, shift, None, None, True, self.opt.eps)
        self.learn(x)
        return y

    @torch.no_grad()
    def learn(self, x: Tensor) -> None:
        """Update the running mean and variance with those of a batch."""
        axes = [0, *range(2, x.dim())]
        variance, mean = torch.var_mean(x, axes, correction=0)
        for held, new in ((self.mean, mean), (self.variance, variance)):
            held.mul_(self.opt.momentum).add_(new.view(held.shape), alpha=1 - self.opt.momentum)


class GRN(Layer):
    """Scales the vector of channels in each cell to length 1.

    bottom x (N, C, ...), top y of the same shape

        y[n, c, p] = x[n, c, p] / sqrt(sum over c of x[n, c, p]^2 + bias)

    Source: OpenVINO training toolbox, grn_layer.cpp.
    """

    def setup(self, x: Tensor) -> None:
        self.require(x.dim() > 1, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, ...)")
        self.require(self.opt.bias >= 0, f"bias is {self.opt.bias:g}, expected 0 or more")

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().sum(1, keepdim=True) + self.opt.bias).rsqrt()


class ChannelNorm(Layer):
    """The length of the vector of channels in each cell. The gradient is 0 where the length is 0.

    bottom x (N, C, ...), top y (N, 1, ...)

        y[n, 0, p] = sqrt(sum over c of x[n, c, p]^2)

    Source: Ilg et al., arXiv:1612.01925 (FlowNet 2), channel_norm_layer.cpp.
    """

    def setup(self, x: Tensor) -> None:
        self.require(x.dim() > 1, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, ...)")

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(x, dim=1, keepdim=True)
