"""Layers that reduce many numbers to few: sums, the largest entries, accuracy."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from caffe.layers.base import Effects, Layer, Records, shape_text
from caffe.layers.support.labels import class_labels
from caffe.layers.support.traits import along_records
from caffe.proto import caffe_pb2

SUM, ASUM, SUMSQ, MEAN = (
    caffe_pb2.ReductionParameter.ReductionOp.Value(name) for name in ("SUM", "ASUM", "SUMSQ", "MEAN")
)


class Reduction(Layer):
    """Reduces all axes from `axis` on to one number.

    bottom x (N..., M...), top y (N...); with axis 0 a scalar ()

        SUM  y = coeff sum x     ASUM  y = coeff sum |x|     SUMSQ  y = coeff sum x^2     MEAN  y = coeff mean x

    Source: BVLC reduction_layer.cpp.
    """

    records = Records.EACH

    def setup(self, *bottoms: Tensor) -> None:
        self.axis(self.opt.axis, bottoms[0])

    def mixes_records(self, axes: int) -> str:
        return along_records(self.opt.axis, axes)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(self.opt.axis)
        if self.opt.operation == ASUM:
            rows = rows.abs()
        elif self.opt.operation == SUMSQ:
            rows = rows.square()
        y = rows.mean(-1) if self.opt.operation == MEAN else rows.sum(-1)
        return y if self.opt.coeff == 1 else y * self.opt.coeff


class ArgMax(Layer, options="argmax_param"):
    """The indices of the `top_k` largest elements, as floats.

    bottom x (N, ...)
    top y, without axis: (N, 1, top_k), with as many axes as x if x has more; with out_max_val (N, 2, top_k), first the
        indices within the flattened item, then the values
    top y, with axis: x's shape with size top_k along the axis; with out_max_val the values in place of the indices

    Among equal elements the one with the higher index comes first.
    Source: BVLC argmax_layer.cpp.
    """

    records = Records.EACH
    constant = (0,)

    def setup(self, *bottoms: Tensor) -> None:
        x, k = bottoms[0], self.opt.top_k
        self.along = self.opt.axis if self.opt.HasField("axis") else None
        if self.along is not None:
            choices = x.shape[self.axis(self.along, x)]
        else:
            self.require(x.dim() > 0, "needs a bottom with at least one axis")
            choices = math.prod(x.shape[1:])
        self.require(k >= 1, "top_k must be 1 or more")
        fact = f"top_k {k} exceeds the {choices} elements to choose from in a bottom of shape {shape_text(x.shape)}"
        self.require(k <= choices, fact)

    def forward(self, x: Tensor) -> Tensor:
        if self.along is not None:
            value, index = largest(x, self.opt.top_k, self.along)
            return value if self.opt.out_max_val else index
        value, index = largest(x.reshape(x.shape[0], -1), self.opt.top_k, 1)
        y = torch.stack([index, value], 1) if self.opt.out_max_val else index.unsqueeze(1)
        return y.reshape(*y.shape, *[1] * (x.dim() - 3))


def largest(x: Tensor, k: int, axis: int) -> tuple[Tensor, Tensor]:
    """The k largest elements along the axis and their indices, as floats. If equal, higher indices come first."""
    mirrored = x.detach().flip(axis)
    if k == 1:
        value, index = mirrored.max(axis, keepdim=True)
    else:
        value, index = torch.sort(mirrored, dim=axis, descending=True, stable=True)
        value, index = value.narrow(axis, 0, k), index.narrow(axis, 0, k)
    return value, (x.shape[axis] - 1 - index).to(x.dtype)


class Accuracy(Layer, bottoms=2, tops=(1, 2)):
    """The share of items whose label is among the `top_k` highest scores.

    bottoms: scores x (O..., C, I...) with the class axis `axis`; labels with O * I elements
    tops: accuracy (); optionally the accuracy of each class (C), 0 for a class that does not occur

    A class with the same score as the label's counts against it. Items with `ignore_label` do not count.
    Source: BVLC accuracy_layer.cpp.
    """

    records = Records.MEAN
    reads_classes = True
    is_score = True
    constant = (0, 1)
    effects = Effects.CHECKS  # the range of labels

    def setup(self, x: Tensor, label: Tensor) -> None:
        self.ignore = self.opt.ignore_label if self.opt.HasField("ignore_label") else None
        axis = self.axis(self.opt.axis, x)
        items, classes = math.prod(x.shape[:axis]) * math.prod(x.shape[axis + 1 :]), x.shape[axis]
        fact = f"has {label.numel()} labels for {items} predictions in a bottom of shape {shape_text(x.shape)}"
        self.require(label.numel() == items, f"{fact}; expected one integer label for each")
        self.require(self.opt.top_k <= classes, f"top_k {self.opt.top_k} exceeds the number of classes, {classes}")

    @classmethod
    def class_axis(cls, spec: Any) -> int:
        return int(spec.accuracy_param.axis)

    @classmethod
    def ignored_label(cls, spec: Any) -> int | None:
        return int(spec.accuracy_param.ignore_label) if spec.accuracy_param.HasField("ignore_label") else None

    def mixes_records(self, axes: int) -> str:
        if self.ignore is None and self.top_count == 1:
            return ""
        return "counts a part of the records, whose number can differ between micro-batches"

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        axis = self.axis(self.opt.axis, x)
        scores = x.detach().movedim(axis, -1).flatten(0, -2) if x.dim() > 1 else x.detach().unsqueeze(0)
        index = class_labels(self, label.flatten(), scores.shape[1], self.ignore)
        counts = torch.ones_like(index, dtype=x.dtype)
        if self.ignore is not None:
            counts = (index != self.ignore).to(x.dtype)
            index = index.where(index != self.ignore, 0)
        # "not less" rather than "at least": a NaN score is never right here, while Caffe counts it as right
        rivals = (~(scores < scores.gather(1, index.unsqueeze(1)))).sum(1) - 1
        right = (rivals < self.opt.top_k).to(x.dtype) * counts
        accuracy = right.sum() / counts.sum().clamp(min=1)
        if self.top_count < 2:
            return accuracy
        per_class = x.new_zeros(2, scores.shape[1]).index_add(1, index, torch.stack([right, counts]))
        return accuracy, per_class[0] / per_class[1].clamp(min=1)


class Maximum(Layer):
    """The position and value of the largest element of each plane. The layer has no gradient.

    bottom x (N, C, H, W), top y (N, C, 1, 3)

        y[n, c, 0] = (w, h, x[n, c, h, w]) for the largest x, the first one if several are equal
        y[n, c, 0] = (0, 0, FLT_MIN) if no x is above FLT_MIN

    Source: CMU-Perceptual-Computing-Lab/caffe_rtpose, maximum_layer.cpp.
    """

    constant = (0,)

    def setup(self, x: Tensor) -> None:
        self.require(x.dim() == 4, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, H, W)")
        self.require(x.shape[2:].numel() > 0, f"{self.bottom_name(0)} has no cells, shape {shape_text(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        value, index = x.detach().flatten(2).max(2)
        least = torch.finfo(torch.float32).tiny
        index = torch.where(value > least, index, 0)
        return torch.stack([index % x.shape[3], index // x.shape[3], value.clamp(min=least)], 2).unsqueeze(2)
