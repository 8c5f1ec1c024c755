"""Loss layers of BVLC Caffe."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe.layers.base import Layer, Loss, Records, shape_text
from caffe.layers.support.exact import is_exact
from caffe.layers.support.floor import floored
from caffe.layers.support.labels import class_labels
from caffe.parallel.group import ALONE, Group
from caffe.proto import caffe_pb2, weights

FLT_MIN = 1.1754943508222875e-38
LOG_THRESHOLD = 1e-20
FULL, VALID, BATCH_SIZE, NONE, PRE_FIXED = (
    caffe_pb2.LossParameter.NormalizationMode.Value(name)
    for name in ("FULL", "VALID", "BATCH_SIZE", "NONE", "PRE_FIXED")
)


class Normalized(Loss, abstract=True):
    """Base of the losses that use loss_param. Items with `ignore_label` do not count. The sum is divided by

        FULL        all items        BATCH_SIZE  the items of the axes before the class axis
        VALID       items that count NONE        1
        PRE_FIXED   pre_fixed_normalizer, of R-FCN

    The divisor is at least 1, except for PRE_FIXED. `normalization` overrides the older option `normalize`.
    """

    more_options = ("loss_param",)
    normalization = VALID
    ignore: int | None = None
    """The label that is ignored, or None."""
    processes: Group = ALONE
    """The processes whose batches VALID counts together."""

    def setup(self, *bottoms: Any, **_: Any) -> None:
        param = self.spec.loss_param
        if param.HasField("ignore_label"):
            self.ignore = param.ignore_label
        if param.HasField("normalization"):
            self.normalization = param.normalization
        elif param.HasField("normalize"):
            self.normalization = VALID if param.normalize else BATCH_SIZE
        self.fixed = param.pre_fixed_normalizer
        self.require(self.fixed > 0, f"pre_fixed_normalizer is {self.fixed:g}, expected a number above 0")

    def mixes_records(self, axes: int) -> str:
        if self.normalization in (NONE, PRE_FIXED):
            return "adds up the losses of all records; write normalization: FULL or BATCH_SIZE in loss_param"
        if self.normalization == VALID and self.ignore is not None:
            return "divides by the items without ignore_label; write normalization: FULL or BATCH_SIZE in loss_param"
        return ""

    def average(self, total: Tensor, valid: Tensor | None, outer: int, inner: int) -> Tensor:
        """Divide `total` as loss_param says. `valid` marks the items that count; None means all."""
        if self.normalization == PRE_FIXED:
            return total / self.fixed
        if self.normalization == VALID and valid is not None and self.processes.size > 1:
            return total / self._mean_count(valid.sum())
        if self.normalization == VALID and valid is not None:
            return total / valid.sum().clamp(min=1)
        sizes = {FULL: outer * inner, VALID: outer * inner, BATCH_SIZE: outer, NONE: 1}
        return total / max(1, sizes[self.normalization])

    def _mean_count(self, own: Tensor) -> Tensor:
        """The mean over all processes of the number of items that count."""
        count = own.to(torch.float32, copy=True)
        self.processes.sum(count)
        return count.clamp(min=1) / self.processes.size


class MultinomialLogisticLoss(Loss, bottoms=2):
    """Cross entropy of probabilities that another layer computed.

    bottoms: probabilities p (N, C...), labels (N)   top: loss ()

        loss = -sum log max(p[label], 1e-20) / N,     dp[label] = -1 / (N max(p[label], 1e-20))

    Source: BVLC multinomial_logistic_loss_layer.cpp.
    """

    records = Records.MEAN
    reads_classes = True
    expects_probabilities = True

    def setup(self, p: Tensor, label: Tensor) -> None:
        same_batch(self, p, label)
        check_labels(self, p, label, p.shape[0])

    def forward(self, p: Tensor, label: Tensor) -> Tensor:
        rows = p.flatten(1)
        index = class_labels(self, label.reshape(-1, 1), rows.shape[1])
        return -floored(rows.gather(1, index), LOG_THRESHOLD).log().sum() / rows.shape[0]


class InfogainLoss(Normalized, bottoms=(2, 3), tops=(1, 2)):
    """Softmax loss in which a matrix H weights each pair of label and class.

    bottoms: scores x (O..., C, I...), class axis `infogain_loss_param.axis`; labels with O * I elements;
    optionally H with C * C elements, else read from the BlobProto file `source`
    tops: loss (); optionally the probabilities, of x's shape, which pass no gradient to x

        loss = -sum over items that count, classes k of H[label, k] log max(softmax(x)[k], 1e-20) / normalizer

    The gradient, (softmax(x) sum_k H[label, k] - H[label]) / normalizer, ignores the clamp.
    Source: BVLC infogain_loss_layer.cpp.
    """

    records = Records.MEAN
    reads_classes = True
    inner_layer = True
    constant = (1, 2)
    matrix: Tensor

    def setup(self, x: Tensor, label: Tensor, matrix: Tensor | None = None) -> None:
        super().setup()
        same_batch(self, x, label)
        axis = self.axis(self.opt.axis, x)
        check_labels(self, x, label, math.prod(x.shape[:axis]) * math.prod(x.shape[axis + 1 :]))
        if matrix is None:
            self.require(bool(self.opt.source), "needs the matrix: give infogain_loss_param.source or a third bottom")
            self.register_buffer("matrix", torch.from_numpy(weights.read_mean(self.opt.source)).float())
            matrix = self.matrix
        wanted = x.shape[axis] ** 2
        fact = f"the infogain matrix has {matrix.numel()} elements, expected {wanted} for {x.shape[axis]} classes"
        self.require(matrix.numel() == wanted, fact)

    def forward(self, x: Tensor, label: Tensor, matrix: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        axis = self.axis(self.opt.axis, x)
        outer, classes, inner = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
        index = class_labels(self, label.reshape(outer, inner), classes, self.ignore)
        gain = (self.matrix if matrix is None else matrix.detach()).to(x.dtype).reshape(classes, classes)
        valid = None if self.ignore is None else index != self.ignore
        if valid is not None:
            index = index.where(valid, 0)
        credit = gain[index].movedim(-1, 1)
        log = floored(F.log_softmax(x.reshape(outer, classes, inner), 1), math.log(LOG_THRESHOLD))
        cost = -(credit * log).sum(1)
        total = cost.sum() if valid is None else cost.where(valid, 0).sum()
        loss = self.average(total, valid, outer, inner)
        return loss if self.top_count < 2 else (loss, F.softmax(x.detach(), axis))


class SigmoidCrossEntropyLoss(Normalized, bottoms=2):
    """Cross entropy of the sigmoid of scores and targets in [0, 1], summed over all elements.

    bottoms: scores x (N, ...), targets t with as many elements   top: loss ()

        loss = -sum over elements that count of t log s(x) + (1 - t) log(1 - s(x)) / normalizer,  s the sigmoid

    The default normalizer is BATCH_SIZE, N. A target is ignored if its integer part equals ignore_label, so
    ignore_label: 0 also drops the target 0.5.
    Source: BVLC sigmoid_cross_entropy_loss_layer.cpp.
    """

    records = Records.MEAN
    normalization = BATCH_SIZE

    def setup(self, x: Tensor, target: Tensor) -> None:
        super().setup()
        same_batch(self, x, target)
        fact = f"scores have shape {shape_text(x.shape)}, targets {shape_text(target.shape)}; expected equal counts"
        self.require(x.numel() == target.numel(), fact)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        target = target.detach().reshape(x.shape)
        cost = F.binary_cross_entropy_with_logits(x, target, reduction="none")
        valid = None if self.ignore is None else target.trunc() != self.ignore
        total = cost.sum() if valid is None else cost.where(valid, 0).sum()
        return self.average(total, valid, x.shape[0], x[0].numel() if x.shape[0] else 0)


class EuclideanLoss(Loss, bottoms=2):
    """Half the mean squared distance. Both bottoms get a gradient.

    bottoms: a (N, ...), b (N, ...) with as many elements   top: loss ()

        loss = sum (a - b)^2 / (2 N)

    Source: BVLC euclidean_loss_layer.cpp.
    """

    records = Records.MEAN
    constant = ()
    exempt = ()

    def setup(self, a: Tensor, b: Tensor) -> None:
        same_batch(self, a, b)
        fact = f"bottoms have shapes {shape_text(a.shape)} and {shape_text(b.shape)}; expected equal counts per item"
        self.require(a.numel() == b.numel(), fact)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b.reshape(a.shape)).square().sum() / (2 * a.shape[0])


class HingeLoss(Loss, bottoms=2):
    """One-against-all hinge loss.

    bottoms: scores x (N, C...), labels (N)   top: loss ()

        m = max(0, 1 + x),  for the label's class max(0, 1 - x)
        L1  loss = sum m / N        L2  loss = sum m^2 / N

    A score of NaN counts as 0.
    Source: BVLC hinge_loss_layer.cpp.
    """

    records = Records.MEAN
    reads_classes = True

    def setup(self, x: Tensor, label: Tensor) -> None:
        same_batch(self, x, label)
        check_labels(self, x, label, x.shape[0])

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        rows = x.flatten(1)
        index = class_labels(self, label.reshape(-1, 1), rows.shape[1])
        sign = torch.ones_like(rows).scatter(1, index, -1.0)
        over = 1 + rows * sign
        margin = torch.where(over > 0, over, 0)
        if self.opt.norm == caffe_pb2.HingeLossParameter.L2:
            margin = margin.square()
        return margin.sum() / rows.shape[0]


class _Distance(torch.autograd.Function):
    """sqrt(sum of d^2 over axis 1) with the gradient d / (distance + 1e-4), which is finite at 0, as in Caffe."""

    @staticmethod
    def forward(ctx: Any, d: Tensor) -> Tensor:
        distance = d.square().sum(1).sqrt()
        ctx.save_for_backward(d, distance)
        return distance

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        d, distance = ctx.saved_tensors
        return (grads[0] / (distance + 1e-4)).unsqueeze(1) * d


class _Contrast(torch.autograd.Function):
    """The mean loss of pairs with the differences `d` (N, C); see ContrastiveLoss.

    One function instead of fifteen, since the loss of a small net takes as long as its products.
    """

    @staticmethod
    def forward(ctx: Any, d: Tensor, alike: Tensor, margin: float, legacy: bool) -> Tensor:
        ctx.save_for_backward(d, alike)
        ctx.margin, ctx.legacy, ctx.exact = margin, legacy, is_exact()
        square = d.square().sum(1)
        apart = F.relu(margin - square) if legacy else F.relu(margin - _reached(square.sqrt(), ctx.exact)).square()
        return torch.where(alike, square, apart).sum() / (2 * len(d))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        d, alike = ctx.saved_tensors
        if ctx.legacy:
            near, factor = d.square().sum(1) < ctx.margin, -1.0
        else:
            distance = _Distance.apply(d)
            near, factor = distance < ctx.margin, (_reached(distance, ctx.exact) - ctx.margin) / (distance + 1e-4)
        weight = torch.where(alike, 1.0, factor) * (grads[0] / len(d))
        return torch.where((alike | near).unsqueeze(1), weight.unsqueeze(1) * d, 0.0), None, None, None


def _reached(distance: Tensor, exact: bool) -> Tensor:
    """The distance; for a check of exact gradients, a function whose derivative is distance / (distance + 1e-4)."""
    return distance - 1e-4 * (distance + 1e-4).log() if exact else distance


class ContrastiveLoss(Loss, bottoms=3):
    """Pulls similar pairs together and pushes dissimilar ones `margin` apart.

    bottoms: a (N, C), b (N, C), similarity y (N), not 0 for similar pairs   top: loss ();  d = |a - b|

        similar  d^2          dissimilar  max(margin - d, 0)^2,  with `legacy_version` max(margin - d^2, 0)

    The loss is the sum over pairs / (2 N). The denominator in the gradient of d is d + 1e-4. A dissimilar pair gets a
    gradient only if margin - d > 0, so none if d is infinite or NaN.
    Source: Hadsell et al., CVPR 2006; BVLC contrastive_loss_layer.cpp.
    """

    records = Records.MEAN
    constant = (2,)
    exempt = (2,)

    def setup(self, a: Tensor, b: Tensor, similar: Tensor) -> None:
        same_batch(self, a, b)
        elements = math.prod(a.shape[:2])
        fact = f"bottoms have shapes {shape_text(a.shape)} and {shape_text(b.shape)}"
        fits = a.dim() > 1 and elements == a.numel() == b.numel() == math.prod(b.shape[:2])
        self.require(fits, f"{fact}; expected equal shapes (N, C) or (N, C, 1, 1)")
        fact = f"{self.bottom_name(2)} has shape {shape_text(similar.shape)}, expected {a.shape[0]} values, one a pair"
        self.require(similar.numel() == a.shape[0], fact)

    def forward(self, a: Tensor, b: Tensor, similar: Tensor) -> Tensor:
        alike = similar.flatten().trunc() != 0
        return _Contrast.apply(a.flatten(1) - b.flatten(1), alike, self.opt.margin, self.opt.legacy_version)


def same_batch(layer: Layer, x: Tensor, y: Tensor) -> None:
    """Check that the first axis of both bottoms has the same size."""
    fact = f"bottoms have shapes {shape_text(x.shape)} and {shape_text(y.shape)}, expected the same first axis"
    layer.require(x.dim() > 0 and y.dim() > 0 and x.shape[0] == y.shape[0], fact)


def check_labels(layer: Layer, x: Tensor, label: Tensor, items: int) -> None:
    """Check that there is one label for each of `items` predictions."""
    layer.require(
        label.numel() == items,
        f"{layer.bottom_name(1)} has {label.numel()} labels, expected {items}: one integer for each prediction "
        f"in {layer.bottom_name(0)} of shape {shape_text(x.shape)}",
    )
