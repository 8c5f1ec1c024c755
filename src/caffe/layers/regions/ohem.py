"""Online hard example mining (R-FCN): losses per region, and the choice of the hardest regions."""

from __future__ import annotations

import torch
from torch import Tensor

from caffe.layers.base import Layer, shape_text
from caffe.layers.loss import Normalized
from caffe.layers.softmax import SoftmaxWithLoss

__all__ = ["BoxAnnotatorOHEM", "SmoothL1LossOHEM", "SoftmaxWithLossOHEM"]


class SmoothL1LossOHEM(Normalized, bottoms=(2, 3), tops=(1, 2), options="smooth_l1_loss_param"):
    """Smooth L1 loss, in total and for each region.

    bottoms: a (N, C, ...), b and optionally weights w with as many elements   tops: loss (); optionally the loss of
    each item (N, 1, ...)

        d = w (a - b);  f(d) = d^2 / 2 where |d| < 1, else |d| - 1/2
        loss = sum f(d) / normalizer,    item: sum of f(d) over axis 1

    loss_param gives the normalizer; all items count. Source: Dai et al., arXiv:1605.06409.
    """

    constant = (2,)
    exempt = (2,)

    def setup(self, *bottoms: Tensor) -> None:
        super().setup()
        self.require(self.opt.sigma == 1, f"sigma is {self.opt.sigma:g}, but this layer always uses 1; remove it")
        first = bottoms[0]
        self.require(
            first.dim() > 1, f"{self.bottom_name(0)} has shape {shape_text(first.shape)}, expected (N, C, ...)"
        )
        for i, other in enumerate(bottoms):
            fact = f"{self.bottom_name(i)} has shape {shape_text(other.shape)}, expected {shape_text(first.shape)}"
            self.require(other.shape[:2] == first.shape[:2] and other.numel() == first.numel(), fact)

    def forward(self, a: Tensor, b: Tensor, weight: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        d = a - b.reshape(a.shape)
        if weight is not None:
            d = d * weight.detach().reshape(a.shape)
        near = d.abs() < 1
        items = torch.where(near, d.square() / 2, d.abs() - 0.5).sum(1, keepdim=True)
        loss = self.average(items.sum(), None, a.shape[0], a[0, 0].numel() if a.numel() else 0)
        return loss if self.top_count < 2 else (loss, items)


class SoftmaxWithLossOHEM(SoftmaxWithLoss, bottoms=2, tops=(1, 3), options="softmax_param"):
    """SoftmaxWithLoss that also returns the loss of each item.

    bottoms, loss and gradient as for SoftmaxWithLoss
    tops: loss (); optionally the probabilities, of x's shape; optionally -log softmax(x)[label] of each item, of x's
    shape with 1 for the class axis, 0 where the label is ignore_label

    Source: Dai et al., arXiv:1605.06409 (R-FCN).
    """

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, ...]:
        axis = self.axis(self.opt.axis, x)
        items, valid = self.losses(x, label)
        loss = self.average(items.sum(), valid, *items.shape)
        shape = [1 if i == axis else size for i, size in enumerate(x.shape)]
        return (loss, x.detach().softmax(axis), items.view(shape))[: self.top_count]


class BoxAnnotatorOHEM(Layer, bottoms=4, tops=2):
    """Keeps the regions with the largest losses of each image and disables the others.

    bottoms: rois (R, 5), rows [image, ...]; losses (R, 1, ...); labels (R, 1, ...); weights (R, C, ...)
    tops: labels, with ignore_label for all but the roi_per_img regions of each image with the largest losses;
    weights, with 0 for the same regions

    Of equal losses the first are kept. There is no gradient. Source: Dai et al., arXiv:1605.06409 (R-FCN).
    """

    constant = (0, 1, 2, 3)

    def setup(self, *bottoms: Tensor) -> None:
        rois, losses, labels, weights = bottoms
        self.require(self.opt.roi_per_img > 0, "roi_per_img must be given and positive")
        count = rois.shape[0] if rois.dim() else 0
        fact = (
            f"{self.bottom_name(0)} has shape {shape_text(rois.shape)}, expected (R, 5): rows [image, x1, y1, x2, y2]"
        )
        self.require(rois.dim() > 1 and rois.shape[:2] == (count, 5) and rois.shape[2:].numel() == 1, fact)
        for i, x in ((1, losses), (2, labels)):
            fact = f"{self.bottom_name(i)} has shape {shape_text(x.shape)}, expected {count} elements, one a region"
            self.require(x.numel() == count, fact)
        fact = f"{self.bottom_name(3)} has shape {shape_text(weights.shape)}, expected {count} rows, one a region"
        self.require(weights.dim() > 0 and weights.shape[0] == count, fact)

    def forward(self, rois: Tensor, losses: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        kept = _hardest(rois.flatten(1)[:, 0], losses.flatten(), self.opt.roi_per_img)
        labels = labels.where(kept.view(labels.shape), float(self.opt.ignore_label))
        return labels, weights.where(kept.view(-1, *[1] * (weights.dim() - 1)), 0)


def _hardest(image: Tensor, loss: Tensor, count: int) -> Tensor:
    """A mask of the `count` regions of each image with the largest losses."""
    order = loss.argsort(descending=True, stable=True)
    order = order[image[order].argsort(stable=True)]  # by image, then by loss
    ordered = image[order].contiguous()
    rank = torch.arange(len(order), device=order.device) - torch.searchsorted(ordered, ordered)
    return torch.zeros_like(order, dtype=torch.bool).scatter(0, order, rank < count)
