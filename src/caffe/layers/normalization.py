"""Layers that bring values to a common scale: BatchNorm, LRN, MVN."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe.layers.base import Layer, shape_text
from caffe.proto import caffe_pb2

__all__ = ["LRN", "MVN", "BatchNorm"]


class BatchNorm(Layer):
    """Brings each channel to mean 0 and variance 1, by the batch in TRAIN and by running statistics in TEST.

    bottom x (N, C, ...), top y of the same shape; m cells a channel

        y = (x - mean) / sqrt(variance + eps)
        TRAIN  mean <- fraction mean + E[x],  variance <- fraction variance + m / (m - 1) Var[x],  factor <- fraction factor + 1

    Blobs, never trained: mean (C), variance (C), factor (1); the statistics are the sums divided by factor.
    y uses the biased variance of the batch.  `use_global_stats` overrides the phase.  A factor of 0 means y = x / sqrt(eps).
    Source: Ioffe and Szegedy, arXiv:1502.03167; BVLC batch_norm_layer.cpp.
    """

    mean: Tensor
    variance: Tensor
    factor: Tensor

    def setup(self, x: Tensor) -> None:
        self.require(x.dim() > 1, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, ...)")
        self.require(
            all(param.lr_mult == 0 for param in self.spec.param),
            "its blobs are statistics and not trained; set lr_mult: 0 in its param blocks, or remove them",
        )
        self.add_blob("mean", (x.shape[1],), trained=False)
        self.add_blob("variance", (x.shape[1],), trained=False)
        self.add_blob("factor", (1,), trained=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.normalize(x)

    def normalize(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """y, then scaled by `weight` and shifted by `bias` (C) in the same pass: BatchNorm followed by Scale."""
        if x.shape[1] != len(self.mean):
            self.error(f"{self.bottom_name(0)} has {x.shape[1]} channels, the layer was set up for {len(self.mean)}")
        if self.uses_running:
            mean, variance = self.running()
            return _batch_norm(x, weight, bias, mean, variance, False, self.opt.eps)
        mean, variance = torch.zeros_like(self.mean), torch.zeros_like(self.variance)
        y = _batch_norm(x, weight, bias, mean, variance, True, self.opt.eps)
        self._update(mean, variance if x.numel() > x.shape[1] else torch.zeros_like(variance))
        return y
