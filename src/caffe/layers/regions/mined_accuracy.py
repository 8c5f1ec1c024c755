"""Accuracy of the cells of MS-CNN's and Cascade R-CNN's maps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from caffe.layers.base import Effects, Layer
from caffe.layers.regions.cascade import denormalized, normal_of
from caffe.layers.regions.mined import Cells, check_groups, check_mined, classes_of, counted, fields_of, places
from caffe.layers.support.boxes import overlaps

__all__ = ["DetectionAccuracy", "DetectionGroupAccuracy"]


class _Accuracy(Layer, abstract=True):
    """Base of both layers. A subclass defines the order of equal scores."""

    effects = Effects.CHECKS  # of the labels
    more_options = ("loss_param", "bbox_reg_param")

    def measure(
        self, cells: Cells, classes: Tensor, field: Tensor, stride: float, last: bool, top_k: int
    ) -> list[Tensor]:
        """The tops: the shares of cells, and of foreground cells, that are right; the mean overlap of the boxes."""
        used = counted(self, classes)
        used = used & ~((classes == 0) & (cells.overlap >= self.opt.bg_threshold))
        named = classes.clamp(0, cells.scores.shape[1] - 1).unsqueeze(1)
        score, number = cells.scores.gather(1, named), torch.arange(cells.scores.shape[1], device=named.device)
        number = number.view(-1, 1, 1)
        tied = (cells.scores == score) & ((number > named) if last else (number < named))
        right = ((cells.scores > score) | tied).sum(1) < top_k
        front = used & (classes != 0)
        shares = torch.stack([_mean(right.to(score), used), _mean(right.to(score), front)]).view(1, 1, 1, 2)
        there = (cells.label != 0) & counted(self, cells.label)
        return [shares, _mean(self._overlap(cells, field, stride), there).view(1, 1, 1, 1)][: self.top_count]

    def _overlap(self, cells: Cells, field: Tensor, stride: float) -> Tensor:
        """The overlap (N, H, W) of each predicted box with its truth."""
        opt = self.opt
        ends = cells.deltas.new_tensor([1 / opt.field_xyr] * 2 + [math.log(opt.field_whr)] * 2).view(1, 4, 1, 1)
        deltas = denormalized(cells.deltas.movedim(1, -1), normal_of(self)).movedim(-1, 1)
        deltas = torch.minimum(torch.maximum(deltas, -ends), ends)
        box = torch.cat([deltas[:, :2] * field + places(deltas, stride), field * deltas[:, 2:].exp()], 1)
        made, real = (
            torch.cat([b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2], 1).movedim(1, -1).unsqueeze(-2)
            for b in (box, cells.box)
        )
        return overlaps(made, real)[..., 0, 0]


class DetectionAccuracy(_Accuracy, bottoms=2, tops=(1, 2)):
    """Accuracy of the cells of one of MS-CNN's maps.

    bottoms: x (N, cls_num + 4, H, W); truth (N, 6, H, W), as for Detection
    tops: the share of cells, and of foreground cells, whose label is among the top_k scores (1, 1, 1, 2); optionally
    the mean overlap of the boxes of the foreground with the truth (1, 1, 1, 1); -1 if there is nothing to average

    Background whose overlap is bg_threshold or more, and loss_param.ignore_label, do not count.
    Source: Cai et al., arXiv:1607.07155; zhaoweicai/mscnn, detection_accuracy_layer.cpp.
    """

    constant = (0, 1)
    exempt = (0, 1)

    def setup(self, x: Tensor, truth: Tensor) -> None:
        check_mined(self, x, truth)
        normal = self.spec.HasField("bbox_reg_param")
        self.require(not normal, "bbox_reg_param is not read by MS-CNN's accuracy; remove it")
        fact = f"top_k is {self.opt.top_k}, expected 1 to cls_num {self.opt.cls_num}"
        self.require(0 < self.opt.top_k <= self.opt.cls_num, fact)

    def forward(self, x: Tensor, truth: Tensor) -> tuple[Tensor, ...]:
        opt, x = self.opt, x.detach()
        cells = Cells.of(x[:, : opt.cls_num], x[:, opt.cls_num :], truth)
        field = x.new_tensor([opt.field_w, opt.field_h]).view(1, 2, 1, 1)
        return tuple(self.measure(cells, classes_of(self, cells, 1, 0), field, opt.downsample_rate, True, opt.top_k))


class DetectionGroupAccuracy(_Accuracy, bottoms=3, tops=(1, 2)):
    """Accuracy of the cells of one of Cascade R-CNN's maps.

    bottoms: scores (N G, cls_num, H, W); deltas (N G, 4, H, W); truth (N G, 6, H, W), as for DetectionGroupLoss
    tops: as for DetectionAccuracy, for the highest score

    Source: Cai and Vasconcelos, arXiv:1712.00726; zhaoweicai/cascade-rcnn, detection_group_accuracy_layer.cpp.
    """

    constant = (0, 1, 2)
    exempt = (0, 1, 2)

    def setup(self, scores: Tensor, deltas: Tensor, truth: Tensor) -> None:
        check_groups(self, scores, deltas, truth)
        normal_of(self)

    def forward(self, scores: Tensor, deltas: Tensor, truth: Tensor) -> tuple[Tensor, ...]:
        cells = Cells.of(scores.detach(), deltas.detach(), truth)
        classes = classes_of(self, cells, 2, torch.iinfo(torch.long).min)
        return tuple(self.measure(cells, classes, fields_of(self, scores), self.opt.stride, False, 1))


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    """The mean of the values that count, -1 if there are none."""
    number = counts.sum()
    return (values.where(counts, 0).sum() / number.clamp(min=1)).where(number > 0, -1)
