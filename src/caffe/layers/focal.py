"""Focal losses of forks: softmax losses in which easy items have a small weight."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from caffe.layers.base import shape_text
from caffe.layers.loss import FLT_MIN, Normalized, floored, same_batch
from caffe.layers.support.labels import class_labels
from caffe.proto import caffe_pb2

__all__ = ["FocalLoss"]


class FocalLoss(Normalized, bottoms=2, tops=(1, 2)):
    """Softmax loss in which items with a high probability of the correct label have a small weight.

    bottoms: scores x (O..., C, I...), class axis `axis`; labels with O * I elements
    tops: loss (); optionally the probabilities, of x's shape, which pass no gradient back

        loss = -sum over items that count of alpha (1 - p)^gamma log max(p, FLT_MIN) / normalizer
        p = softmax(x)[label]

    The default of alpha is 0.25, as in jolibrain's fork; happynear's fork uses 1. The gradient ignores the floor of p.
    type: LINEAR is not implemented.
    Source: Lin et al., arXiv:1708.02002; jolibrain/caffe, focal_loss_layer.cpp.
    """

    reads_classes = True
    without_effect = ("engine",)
    inner_layer = True

    def setup(self, *bottoms: Any, **_: Any) -> None:
        x, label = bottoms
        super().setup()
        same_batch(self, x, label)
        opt = self.opt
        linear = opt.type == caffe_pb2.FocalLossParameter.LINEAR
        self.require(not linear and not opt.HasField("beta"), "type: LINEAR and beta are not implemented; remove them")
        self.alpha = opt.alpha if opt.HasField("alpha") else 0.25
        self.require(self.alpha > 0, f"alpha is {self.alpha:g}, expected a number above 0")
        self.require(opt.gamma >= 0, f"gamma is {opt.gamma:g}, expected 0 or more")
        axis = self.axis(opt.axis, x)
        items = math.prod(x.shape[:axis]) * math.prod(x.shape[axis + 1 :])
        fact = f"{self.bottom_name(1)} has {label.numel()} labels, expected {items}"
        self.require(label.numel() == items, f"{fact}: one for each prediction of shape {shape_text(x.shape)}")

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, ...]:
        axis = self.axis(self.opt.axis, x)
        outer, classes, inner = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
        index = class_labels(self, label.reshape(outer, inner), classes, self.ignore)
        skip = -1 if self.ignore is None else self.ignore
        log = -F.nll_loss(
            F.log_softmax(x.reshape(outer, classes, inner), 1), index, ignore_index=skip, reduction="none"
        )
        easy = (1 - log.exp()).clamp(min=FLT_MIN)  # a power of 0 would have no finite slope
        items = -self.alpha * easy.pow(self.opt.gamma) * floored(log, math.log(FLT_MIN))
        valid = None if self.ignore is None else index != self.ignore
        loss = self.average(items.sum(), valid, outer, inner)
        return loss if self.top_count < 2 else (loss, F.softmax(x.detach(), self.opt.axis))
