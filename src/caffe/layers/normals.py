"""Layers of xiaolonw's forks for surface normals, and losses of other forks."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe.layers.base import Effects, Layer, Loss, shape_text
from caffe.layers.loss import FLT_MIN, floored
from caffe.layers.softmax import Softmax
from caffe.layers.support.exact import is_exact, tell
from caffe.layers.support.labels import class_labels

__all__ = [
    "ANGLE_LOSS",
    "LABEL_DROPOUT",
    "MULTI_SOFTMAX",
    "MULTI_SOFTMAX_LOSS",
    "NORM",
    "SIGMOID_LOSS",
    "L1Loss",
]


class MULTI_SOFTMAX(Softmax, options="softmax_param"):  # noqa: N801 - the type's name
    """Converts scores to probabilities over the channels of each cell: Softmax along axis 1.

    bottom x (N, C, H, W), top y of the same shape

        y = exp(x - max x) / sum exp(x - max x)

    Source: xiaolonw/caffe-3dnormal_joint_pose, multi_softmax_layer.cpp.
    """


class MULTI_SOFTMAX_LOSS(Loss, bottoms=2, options="softmax_param"):  # noqa: N801 - the type's name
    """Cross entropy of the softmax in each cell, with labels that start at 1.

    bottoms: scores x (N, C, H, W), labels 1 ... C with N H W elements   top: loss ()

        loss = -sum over cells of log max(softmax(x)[label - 1], FLT_MIN) / (336 N)

    The gradient is (softmax(x) - onehot(label - 1)) / N, without the factor 1 / 336, as in the source.
    Source: xiaolonw/caffe-3dnormal_joint_pose, multi_softmax_loss_layer.cpp.
    """

    def setup(self, x: Tensor, label: Tensor) -> None:
        self.require(x.dim() > 1, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, H, W)")
        items = x.numel() // x.shape[1] if x.shape[1] else 0
        fact = f"{self.bottom_name(1)} has {label.numel()} labels, expected {items}: one for each cell of shape"
        self.require(label.numel() == items, f"{fact} {shape_text(x.shape)}")

    def example(self, index: int, x: Tensor) -> Tensor | None:
        return torch.ones_like(x) if index else None

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        rows = x.flatten(2) if x.dim() > 2 else x.unsqueeze(2)
        index = class_labels(self, label.reshape(rows.shape[0], -1) - 1, rows.shape[1])
        log = floored(F.log_softmax(rows, 1).gather(1, index.unsqueeze(1)), math.log(FLT_MIN))
        loss = -log.sum() / rows.shape[0]
        if is_exact():
            tell("the gradient is 336 times the slope")
            return loss / 336
        return loss.detach() / 336 + (loss - loss.detach())


class _UnitLength(torch.autograd.Function):
    """x / (|x| + 1e-6) along axis 1, with the gradient (|x|^2 dy - x (x dy)) / (|x|^3 + 1e-6), which is 0 at x = 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-6)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,), (dy,) = ctx.saved_tensors, grads
        square = x.square().sum(1, keepdim=True)
        return (square * dy - x * (x * dy).sum(1, keepdim=True)) / (square * square.sqrt() + 1e-6)


class NORM(Layer, options={}):
    """Scales the vector of channels in each cell to length 1.

    bottom x (N, C, ...), top y of the same shape

        y[n, c, p] = x[n, c, p] / (|x[n, :, p]| + 1e-6)

    The denominator in the gradient is |x|^3 + 1e-6. The gradient is 0 where x is 0.
    Source: xiaolonw/caffe-3dnormal_joint_pose, norm_layer.cpp.
    """

    def setup(self, x: Tensor) -> None:
        self.require(x.dim() > 1, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, ...)")

    def forward(self, x: Tensor) -> Tensor:
        if is_exact():
            return x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + 1e-6)
        return _UnitLength.apply(x)


class _Angle(torch.autograd.Function):
    """acos of x with the gradient -1 / (sqrt(1 - x^2) + 1e-6), which is finite at 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.acos()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return -grads[0] / ((1 - x * x).sqrt() + 1e-6)


class ANGLE_LOSS(Loss, bottoms=2, options={}):  # noqa: N801 - the type's name
    """The angle between predicted and true directions, summed over cells.

    bottoms: unit vectors x (N, C, H, W), unit vectors t of the same shape   top: loss ()

        loss = sum over cells of acos(sum over c of x t) / N, cells with |t[n, 0, h, w]| > 10 left out

    The denominator in the gradient is sqrt(1 - cos^2) + 1e-6. A product outside -1 ... 1 gives NaN.
    Source: xiaolonw/caffe-3dnormal_joint_pose, angle_loss_layer.cpp.
    """

    effects = Effects.NONE

    def setup(self, x: Tensor, target: Tensor) -> None:
        fact = f"bottoms have shapes {shape_text(x.shape)} and {shape_text(target.shape)}"
        self.require(x.dim() > 1 and x.shape == target.shape, f"{fact}, expected equal shapes (N, C, ...)")

    def example(self, index: int, x: Tensor) -> Tensor | None:
        """Vectors shorter than 1, so that their products are within -1 ... 1."""
        place = torch.arange(x.numel(), dtype=x.dtype, device=x.device).view(x.shape)
        return 0.9 * F.normalize((place + index).sin(), dim=1)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        target = target.detach()
        cosine = (x * target).sum(1)
        counts = target[:, 0].abs() <= 10
        cosine = torch.where(counts, cosine, 0)
        angle = cosine.acos() if is_exact() else _Angle.apply(cosine)
        return torch.where(counts, angle, 0).sum() / x.shape[0]


class SIGMOID_LOSS(Loss, bottoms=2, options={}):  # noqa: N801 - the type's name
    """Cross entropy of the sigmoid of scores; a label is 1 or anything else.

    bottoms: scores x (N, ...), labels of as many elements   top: loss ()

        loss = -sum log max(s(x), FLT_MIN) where the label's integer part is 1, else log max(1 - s(x), FLT_MIN), / N

    The gradient, (s(x) - (label is 1)) / N, ignores the clamp.
    Source: xiaolonw/caffe-3dnormal_joint_pose, sigmoid_loss_layer.cpp.
    """

    effects = Effects.NONE

    def setup(self, x: Tensor, label: Tensor) -> None:
        fact = f"scores have shape {shape_text(x.shape)}, labels {shape_text(label.shape)}; expected equal counts"
        self.require(x.dim() > 0 and x.numel() == label.numel(), fact)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        label = label.detach().reshape(x.shape)
        hit = (label >= 1) & (label < 2)
        return -floored(F.logsigmoid(torch.where(hit, x, -x)), math.log(FLT_MIN)).sum() / x.shape[0]


class LABEL_DROPOUT(Layer, bottoms=2, options="label_drop_param"):  # noqa: N801 - the type's name
    """Keeps the predictions of all positive cells and of some negative cells. Other cells of the top get the label.

    bottoms: x (N, C, H, W), labels t of the same shape, 1 positive and 0 negative   top y of the same shape

        y = x where the cell is picked, else t

    For a plane with p positive cells, n = int(p drop_neg_ratio). Up to n negative cells are all picked. If there are
    more, int(n hard_ratio) are drawn from the n with the largest |x|, and int(n rand_ratio) from the others, which
    include as many of those n that were not drawn. The picked cells of x get the gradient.
    Source: xiaolonw/caffe-3dnormal_joint_pose, label_dropout_layer.cpp.
    """

    constant = (1,)
    exempt = (1,)
    effects = Effects.RANDOM
    traceable = False  # each run draws new random numbers, in TEST too

    def setup(self, x: Tensor, label: Tensor) -> None:
        fact = f"bottoms have shapes {shape_text(x.shape)} and {shape_text(label.shape)}"
        self.require(x.dim() == 4 and x.shape == label.shape, f"{fact}, expected equal shapes (N, C, H, W)")
        opt = self.opt
        for name in ("drop_neg_ratio", "hard_ratio", "rand_ratio"):
            self.require(getattr(opt, name) >= 0, f"{name} is {getattr(opt, name):g}, expected 0 or more")
        fact = f"hard_ratio {opt.hard_ratio:g} and rand_ratio {opt.rand_ratio:g} are more than 1 together"
        self.require(opt.hard_ratio + opt.rand_ratio <= 1, fact)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        label = label.detach()
        return torch.where(self.picked(x.detach(), label), x, label)

    def picked(self, x: Tensor, label: Tensor) -> Tensor:
        """A mask of the cells of x that the top keeps."""
        opt, positive, negative = self.opt, (label == 1).flatten(2), (label == 0).flatten(2)
        wanted = (positive.sum(2, keepdim=True) * opt.drop_neg_ratio).trunc()
        hardest = negative & (_rank(x.abs().flatten(2), negative) < wanted)
        place = _rank(torch.rand_like(x).flatten(2), hardest)
        hard, rand = (wanted * opt.hard_ratio).trunc(), (wanted * opt.rand_ratio).trunc()
        drawn = hardest & (place < hard)
        pool = (negative & ~hardest) | (hardest & (place >= hard) & (place < hard + rand))
        drawn = drawn | (pool & (_rank(torch.rand_like(x).flatten(2), pool) < rand))
        every = negative.sum(2, keepdim=True) <= wanted
        return (positive | torch.where(every, negative, drawn)).view_as(x)


class L1Loss(Loss, bottoms=(1, 2)):
    """Mean over the batch of the sum of absolute differences. Both bottoms get a gradient.

    bottoms: a (N, ...), b (N, ...) with as many elements   top: loss ()

        loss = sum |a - b| / N;  l2_per_location: sum over cells of sqrt(sum over c of (a - b)^2 + epsilon) / N

    With l1_loss_param (FlowNet): b is optional and defaults to 0; NaN counts as 0 and gets no gradient; differences
    below `plateau` count as 0; l2_prescale_by_channels takes the mean over c; normalize_by_num_entries divides by
    (elements that are not NaN) / C in place of N.
    Source: NVIDIA's caffe (DetectNet), l1_loss_layer.cpp; Ilg et al., arXiv:1612.01925 (FlowNet 2), l1loss_layer.cu.
    """

    constant = ()
    exempt = ()
    effects = Effects.NONE

    def setup(self, a: Tensor, *others: Tensor) -> None:
        self.flownet = self.spec.HasField("l1_loss_param")
        self.require(bool(others) or self.flownet, "has one bottom; expected two, or l1_loss_param (FlowNet)")
        b = others[0] if others else a
        fact = f"bottoms have shapes {shape_text(a.shape)} and {shape_text(b.shape)}; expected equal counts per item"
        fits = a.dim() > 0 and b.dim() > 0 and a.shape[0] == b.shape[0] and a.numel() == b.numel()
        self.require(fits, fact)
        self.require(not self.flownet or a.dim() > 1, f"{self.bottom_name(0)} needs channels (N, C, ...)")

    def forward(self, a: Tensor, *others: Tensor) -> Tensor:
        off = a - others[0].reshape(a.shape) if others else a
        if not self.flownet:
            return off.abs().sum() / a.shape[0]
        opt, there = self.opt, ~off.isnan()
        off = torch.where(there, off, torch.zeros_like(off))
        if opt.l2_per_location:
            square = off.square().mean(1) if opt.l2_prescale_by_channels else off.square().sum(1)
            square = torch.where(square < opt.plateau**2, torch.zeros_like(square), square)
            total = (square + opt.epsilon).sqrt().sum()
        else:
            total = torch.where(off.abs() < opt.plateau, torch.zeros_like(off), off).abs().sum()
        return total / (there.sum() / a.shape[1] if opt.normalize_by_num_entries else a.shape[0])


def _rank(value: Tensor, among: Tensor) -> Tensor:
    """The rank of each cell among the marked cells, in descending order of value. Other cells rank behind them."""
    return torch.where(among, value, -1).argsort(-1, descending=True).argsort(-1)
