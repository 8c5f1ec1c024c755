"""DenseBlock: a whole block of DenseNet as one layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe.layers.base import Effects, Layer, shape_text
from caffe.layers.support.batch_norm import batch_norm
from caffe.proto import caffe_pb2

__all__ = ["DenseBlock"]

_EPS = 1e-5
_ONES = caffe_pb2.FillerParameter(value=1)


class _Block(Layer, abstract=True):
    """Base of DenseBlock: its blobs and its normalization."""

    count: int
    """The number of steps, L."""
    factor: Tensor

    def blobs_of(self, kind: str, step: int) -> Tensor:
        """The blob of a kind and a step, such as filter 3."""
        found: Tensor = getattr(self, f"{kind}{step}")
        return found

    def declare(self, channels: int) -> None:
        """Declare the blobs, kind by kind."""
        opt, growth = self.opt, self.opt.growthRate
        wide = 4 * growth
        inner = [channels + step * growth for step in range(self.count)]
        filters = [(growth, wide if opt.use_BC else c, 3, 3) for c in inner]
        self._add("filter", filters, opt.Filter_Filler)
        self._add_norm("", [(1, c, 1, 1) for c in inner])
        if opt.use_BC:
            self._add("bc_filter", [(wide, c, 1, 1) for c in inner], opt.Filter_Filler)
            self._add_norm("bc_", [(1, wide, 1, 1)] * self.count)
        self.add_blob("factor", (1,), trained=False)

    def _add_norm(self, stem: str, shapes: Sequence[tuple[int, ...]]) -> None:
        self._add(f"{stem}scale", shapes, self.opt.BN_Scaler_Filler)
        self._add(f"{stem}shift", shapes, self.opt.BN_Bias_Filler)
        self._add(f"{stem}mean", shapes, None, trained=False)
        self._add(f"{stem}variance", shapes, _ONES, trained=False)

    def _add(self, kind: str, shapes: Sequence[tuple[int, ...]], fill: Any, trained: bool = True) -> None:
        for step, shape in enumerate(shapes):
            self.add_blob(f"{kind}{step}", shape, fill, trained)

    def _norm(self, stem: str, step: int, x: Tensor) -> Tensor:
        scale, shift, mean, variance = (
            self.blobs_of(stem + kind, step).flatten() for kind in ("scale", "shift", "mean", "variance")
        )
        if not self.training:
            weight = 1 / self.factor.where(self.factor != 0, torch.inf)
            return batch_norm(x, scale, shift, mean * weight, variance * weight, False, _EPS)
        with torch.no_grad():
            wide, centre = torch.var_mean(x, (0, 2, 3), correction=1)
            for held, new in ((mean, centre), (variance, wide)):
                held.mul_(self.opt.moving_average_fraction).add_(new)
        count = x.numel() // x.shape[1]
        share = (count - 1) / count  # of the variance that batch_norm takes in that of the source
        return batch_norm(x, scale * share**0.5, shift, None, None, True, _EPS * share)


class DenseBlock(_Block, options="denseblock_param"):
    """A block of DenseNet: L times batch normalization, ReLU and a 3 x 3 convolution, whose maps join the bottom.

    bottom x (N, C, H, W), top (N, C + L k, H, W), L = numTransition, k = growthRate

        x <- concatenation of x and conv3x3(relu(norm(x)));  with use_BC conv3x3(relu(norm(conv1x1(relu(norm(x))))))

    norm is that of BatchNorm and Scale, eps 1e-5, but TRAIN normalizes with the unbiased variance, as in the source.
    use_dropout drops dropout_amount of the convolutions' maps in TRAIN. Blobs, L of each: filter, scale, shift, mean,
    variance; with use_BC likewise of the 1 x 1 part with 4 k maps; the factor of the sums (1).
    Source: Huang et al., arXiv:1608.06993; Tongcheng's and senlinuc's (caffe_ocr) DenseBlock_layer.cpp.
    """

    without_effect = ("initChannel", "gpuIdx", "workspace_mb", "BC_ultra_space_efficient", "BC_filter_filler")
    effects = Effects.BUFFERS | Effects.RANDOM

    @property
    def effects_now(self) -> Effects:
        drops = Effects.RANDOM if self.opt.use_dropout else Effects.NONE
        return Effects.BUFFERS | drops if self.training else Effects.NONE

    def setup(self, x: Tensor) -> None:
        opt = self.opt
        self.require(x.dim() == 4, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, H, W)")
        self.require(opt.numTransition > 0 and opt.growthRate > 0, "numTransition and growthRate must be positive")
        sizes = (opt.pad_h, opt.pad_w, opt.conv_verticalStride, opt.conv_horizentalStride, opt.filter_H, opt.filter_W)
        self.require(sizes == (1, 1, 1, 1, 3, 3), f"pads, strides and filter are {sizes}, expected (1, 1, 1, 1, 3, 3)")
        fact = f"dropout_amount is {opt.dropout_amount:g}, expected a number from 0 to 1"
        self.require(not opt.use_dropout or 0 <= opt.dropout_amount <= 1, fact)
        self.require(not opt.HasField("BC_bias_filler"), "BC_bias_filler has no blob in the source; remove it")
        self.count = opt.numTransition
        self.declare(x.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        for step in range(self.count):
            y = self._norm("", step, x).relu()
            if self.opt.use_BC:
                y = self._norm("bc_", step, F.conv2d(y, self.blobs_of("bc_filter", step))).relu()
            y = F.conv2d(y, self.blobs_of("filter", step), padding=1)
            if self.opt.use_dropout and self.training:
                y = F.dropout(y, self.opt.dropout_amount)
            x = torch.cat([x, y], 1)
        if self.training:
            with torch.no_grad():
                self.factor.mul_(self.opt.moving_average_fraction).add_(1)
        return x
