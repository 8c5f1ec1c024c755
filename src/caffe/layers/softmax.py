"""Softmax, and the cross entropy of the softmax, which most classifiers are trained with."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe.layers.base import Layer, Records
from caffe.layers.loss import FLT_MIN, Normalized, check_labels, same_batch
from caffe.layers.support.floor import floored
from caffe.layers.support.labels import class_labels
from caffe.layers.support.traits import along_records
from caffe.layers.support.values import can_look

__all__ = ["Softmax", "SoftmaxWithLoss"]

_LEAST = math.log(FLT_MIN)
_LANES = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8
_SOME_ROWS, _SMALL = 64, 1 << 16
_NO_LABEL = -(1 << 62) + 1
"""A number that no label is, because no float32 has this value: torch then ignores no label."""


class Softmax(Layer):
    """Converts scores to probabilities along one axis.

    bottom x (..., C, ...), top y of the same shape

        y = exp(x - max x) / sum exp(x - max x)

    `engine` has no effect: in Caffe it selects between equivalent implementations.
    Source: BVLC softmax_layer.cpp.
    """

    records = Records.EACH
    probabilities = True

    def setup(self, *bottoms: Tensor) -> None:
        self.axis(self.opt.axis, bottoms[0])

    def mixes_records(self, axes: int) -> str:
        return along_records(self.opt.axis, axes)

    def forward(self, x: Tensor) -> Tensor:
        if self.opt.axis in (-1, x.dim() - 1) and _has_short_rows(x):
            return F.softmax(x.mT.contiguous(), -2).mT.contiguous()
        return F.softmax(x, self.opt.axis)


class SoftmaxWithLoss(Normalized, bottoms=2, tops=(1, 2), options="softmax_param"):
    """Cross entropy of the softmax of scores.

    bottoms: scores x (O..., C, I...), class axis `softmax_param.axis`; labels with O * I elements
    tops: loss (); optionally the probabilities, of x's shape, which pass no gradient to x

        loss = -sum over items that count of w log max(softmax(x)[label], FLT_MIN) / normalizer

    w is 1, or class_weighting[label] with weight_by_label_freqs (SegNet); it does not change the normalizer.
    The gradient, w (softmax(x) - onehot(label)) / normalizer, ignores the clamp.
    Source: BVLC softmax_loss_layer.cpp, which aborts if there are two tops; SegNet's.
    """

    records = Records.MEAN
    reads_classes = True
    inner_layer = True
    honours = ("LossParameter.weight_by_label_freqs", "LossParameter.class_weighting")
    class_weights: tuple[float, ...] = ()

    def setup(self, x: Tensor, label: Tensor) -> None:
        super().setup()
        same_batch(self, x, label)
        axis = self.axis(self.opt.axis, x)
        if self.spec.loss_param.weight_by_label_freqs:
            self.class_weights = tuple(self.spec.loss_param.class_weighting)
            fact = f"class_weighting is given {len(self.class_weights)} times, expected once for each class, "
            self.require(len(self.class_weights) == x.shape[axis], f"{fact}{x.shape[axis]}")
        items = math.prod(x.shape[:axis]) * math.prod(x.shape[axis + 1 :])
        check_labels(self, x, label, items)

    def mixes_records(self, axes: int) -> str:
        return along_records(self.opt.axis, axes) or super().mixes_records(axes)

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, ...]:
        plain = self.opt.axis in (-1, x.dim() - 1) and self.ignore is None and not self.class_weights
        total = _sum_of_few(x, label) if plain else None
        if total is not None:
            loss = self.average(total, None, label.numel(), 1)
        else:
            items, valid = self.losses(x, label)
            loss = self.average(items.sum(), valid, *items.shape)
        return loss if self.top_count < 2 else (loss, F.softmax(x.detach(), self.opt.axis))

    def losses(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor | None]:
        """The loss (outer, inner) of each item, 0 for ignored items, and a mask of the others (None if none is)."""
        axis = self.axis(self.opt.axis, x)
        outer, classes, inner = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
        index = class_labels(self, label.reshape(outer, inner), classes, self.ignore)
        cells = x.reshape(outer, classes, inner)
        log = F.log_softmax(cells, 1) if inner != 1 else _log_softmax(cells.flatten(1)).unsqueeze(2)
        skip = -1 if self.ignore is None else self.ignore
        picked = floored(-F.nll_loss(log, index, ignore_index=skip, reduction="none"), _LEAST)
        if self.class_weights:
            picked = picked * x.new_tensor(self.class_weights)[index.clamp(0, classes - 1)]
        return -picked, None if self.ignore is None else index != self.ignore


def _sum_of_few(x: Tensor, label: Tensor) -> Tensor | None:
    """The sum of the losses of a small batch of rows (..., C) in few calls of torch. None if this is not possible.

    It is possible if no probability is below FLT_MIN, so that the clamp changes nothing. torch checks the labels.
    """
    if x.device.type != "cpu" or not can_look(x) or not can_look(label) or x.dim() < 2 or not 0 < x.numel() <= _SMALL:
        return None
    log = _log_softmax(x.flatten(0, -2))
    if not float(log.detach().amin()) > _LEAST:
        return None  # also for NaN
    try:
        return F.nll_loss(log, label.detach().flatten().long(), ignore_index=_NO_LABEL, reduction="sum")
    except IndexError:
        return None  # a wrong label, which class_labels names


def _has_short_rows(x: Tensor) -> bool:
    """Whether the last axis of x is shorter than a vector register, for which torch's softmax is several times slower
    than for the columns of the transposed tensor."""
    return can_look(x) and x.dim() > 1 and x.shape[-1] < _LANES and x.shape[-2] >= _SOME_ROWS


def _log_softmax(rows: Tensor) -> Tensor:
    """The logarithm of the softmax of each row of (N, C)."""
    return F.log_softmax(rows.mT.contiguous(), 0).mT if _has_short_rows(rows) else F.log_softmax(rows, 1)
