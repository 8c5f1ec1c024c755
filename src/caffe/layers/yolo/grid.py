"""The loss of YOLO 1, and evaluation of YOLO 1, YOLO 2 and masks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from caffe.layers.base import Effects, Layer, Loss, has_values, shape_text
from caffe.layers.regions.mined import check_mined, mined_loss
from caffe.layers.support.boxes import nms, overlaps
from caffe.layers.support.exact import is_exact
from caffe.layers.support.labels import number_text
from caffe.layers.support.values import can_look, untraced
from caffe.layers.yolo.cells import anchors_of, apart, boxes_of, check_map, check_truth, corners, lossy, read_truth
from caffe.proto import caffe_pb2

__all__ = ["DetectionLoss", "EvalDetection", "SegmentationEvaluate"]

OBJ, PROB, MULTIPLY = (caffe_pb2.EvalDetectionParameter.ScoreType.Value(name) for name in ("OBJ", "PROB", "MULTIPLY"))
_MSCNN = 30000
"""The lowest number of MS-CNN's fields in DetectionLossParameter."""
Predictions = tuple[Tensor, Tensor, Tensor]
"""Class scores (N, C, S S), objectness (N, B, S S) and boxes (N, B, S S, 4) as the net outputs them."""


class _Grid(Layer, abstract=True):
    """Base of both layers: bottom 0 is (N, S S (C + 5 B)), bottom 1 (N, 7 S S), S = side, B = num_object."""

    def check_grid(self, x: Tensor, rows: Tensor) -> None:
        """Raise an error if options and shapes are inconsistent."""
        opt = self.opt
        self.require(min(opt.side, opt.num_class, opt.num_object) > 0, "side, num_class, num_object must be positive")
        cells = opt.side**2
        for i, y, wanted in ((0, x, cells * (opt.num_class + 5 * opt.num_object)), (1, rows, 7 * cells)):
            fits = y.dim() > 1 and y.shape[0] == x.shape[0] and y.shape[1:].numel() == wanted
            fact = f"{self.bottom_name(i)} has shape {shape_text(y.shape)}, expected {wanted} elements for each of the"
            self.require(fits, f"{fact} {x.shape[0]} images (side {opt.side})")

    def parts(self, x: Tensor) -> Predictions:
        """The predictions of bottom 0."""
        opt, cells = self.opt, self.opt.side**2
        classes, object_, boxes = x.reshape(len(x), -1, cells).split(
            [opt.num_class, opt.num_object, 4 * opt.num_object], 1
        )
        return classes, object_, boxes.unflatten(1, (-1, 4)).movedim(2, 3)

    def in_image(self, boxes: Tensor) -> Tensor:
        """Convert boxes (..., S S, 4) of the net's output to coordinates relative to the image size."""
        centre, size = boxes[..., :2], boxes[..., 2:]
        if self.opt.constriant:
            centre = (centre + self.cells(boxes)) / self.opt.side
        return torch.cat([centre, size.square() if self.opt.sqrt else size], -1)

    def cells(self, x: Tensor) -> Tensor:
        """The column and row (S S, 2) of each cell."""
        index = torch.arange(self.opt.side**2, device=x.device)
        return torch.stack([index % self.opt.side, index // self.opt.side], -1).to(x.dtype)


class _DetectionLoss(_Grid, abstract=True):
    """Base of DetectionLoss: helper methods."""

    def _labels(self, label: Tensor, there: Tensor) -> Tensor:
        index = label.nan_to_num(-1, -1, -1).long()
        wrong = there & ((index < 0) | (index >= self.opt.num_class))
        if can_look(label) and not is_exact() and wrong.any():
            held = f"{self.bottom_name(1)} holds the label {number_text(float(label[wrong][0]))}"
            self.error(f"{held}, expected 0 to {self.opt.num_class - 1}; correct the data")
        return index.clamp(0, self.opt.num_class - 1)

    def _best(self, given: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """The overlap (N, B, S S) of each box with the truth of its cell, and a mask of the best box of each cell."""
        boxes, truth = self.in_image(given).movedim(1, 2), truth.unsqueeze(2)  # (N, S S, B, 4)
        overlap = overlaps(corners(boxes), corners(truth))[..., 0]
        distance = torch.linalg.vector_norm(boxes - truth, dim=-1)
        place = overlap.argmax(2).where((overlap > 0).any(2), distance.argmin(2))
        number = torch.arange(self.opt.num_object, device=given.device)
        return overlap.movedim(2, 1), (place.unsqueeze(2) == number).movedim(2, 1)


class DetectionLoss(_DetectionLoss, Loss, bottoms=2):
    """The loss of YOLO 1: each cell with an object has one class, and its best box is trained. With cls_num: MS-CNN's.

    bottoms: predictions (N, S S (C + 5 B)): classes p, objectness o and x, y, w, h of each box, each for all cells;
    truth (N, 7 S S): difficult, whether there is an object, its class, then x, y, w, h of each cell   top: loss ()

        loss = (class_scale sum (p - 1 or 0)^2 + object_scale sum (o - 1)^2 + coord_scale sum (box - truth)^2) / objects
               + noobject_scale sum o^2 / boxes without an object
        gradient: the differences times their scale / N, and for o of a best box object_scale (o - its overlap) / N

    The best box has the largest overlap with the truth, or is the nearest if none overlaps. constriant: x, y are in
    cells, relative to the cell; sqrt: w, h are square roots. Detection describes MS-CNN's.
    Source: Redmon et al., arXiv:1506.02640; yeahkun/caffe-yolo, detection_loss_layer.cpp.
    """

    effects = Effects.VALUES | Effects.RANDOM  # MS-CNN's draws background
    more_options = ("loss_param", "bbox_reg_param")

    def setup(self, x: Tensor, rows: Tensor) -> None:
        given = [field.name for field, _ in self.opt.ListFields()]
        self.mined = "cls_num" in given
        others = [n for n in given if (self.opt.DESCRIPTOR.fields_by_name[n].number < _MSCNN) == self.mined]
        kinds = ("MS-CNN's", "YOLO's") if self.mined else ("YOLO's", "MS-CNN's")
        fact = f"is {kinds[0]} layer, as cls_num is {'' if self.mined else 'not '}given"
        self.require(not others, f"{fact}, but {', '.join(others)} is of {kinds[1]}; keep the options of one")
        if self.mined:
            check_mined(self, x, rows)
        else:
            self.check_grid(x, rows)

    def forward(self, x: Tensor, rows: Tensor) -> Tensor:
        return mined_loss(self, x, rows) if self.mined else self._loss(x, rows)

    def _loss(self, x: Tensor, rows: Tensor) -> Tensor:
        opt, cells, boxes = self.opt, self.opt.side**2, self.opt.num_object
        rows = rows.detach().reshape(len(rows), -1)
        there = rows[:, cells : 2 * cells] != 0
        label = self._labels(rows[:, 2 * cells : 3 * cells], there)
        truth = rows[:, 3 * cells :].unflatten(1, (cells, 4))
        classes, object_, given = self.parts(x)
        goal = torch.cat([truth[..., :2], truth[..., 2:].sqrt() if opt.sqrt else truth[..., 2:]], -1)
        if opt.constriant:
            goal = torch.cat([goal[..., :2] * opt.side - self.cells(x), goal[..., 2:]], -1)
        overlap, best = self._best(given.detach(), truth)
        best = best & there.unsqueeze(1)

        named = torch.nn.functional.one_hot(label, opt.num_class).movedim(2, 1)
        off = (classes - named).where(there.unsqueeze(1), 0)
        far = (given - goal.unsqueeze(1)).where(best.unsqueeze(-1), 0)
        right, wrong = (object_ - 1).where(best, 0), object_.masked_fill(best, 0)
        sums = opt.class_scale * off.square().sum() + opt.coord_scale * far.square().sum()
        sums = sums + opt.object_scale * right.square().sum()
        count = there.sum()
        loss = sums / count.clamp(min=1)
        loss = loss + opt.noobject_scale * wrong.square().sum() / (cells * boxes * len(x) - count).clamp(min=1)
        rescored = opt.object_scale * (object_ - overlap).where(best, 0) + opt.noobject_scale * wrong
        parts = [opt.class_scale * off, rescored, opt.coord_scale * far.movedim(3, 2).flatten(1, 2)]
        return lossy(x, loss, torch.cat(parts, 1).reshape(x.shape) / len(x))


class _EvalDetection(_Grid, abstract=True):
    """Base of EvalDetection: helper methods."""

    anchors: list[tuple[float, float]]

    @torch.no_grad()
    def _evaluate(self, x: Tensor, rows: Tensor) -> Tensor:
        opt = self.opt
        top = x.new_zeros(len(x), opt.num_class + 4 * opt.side**2 * opt.num_object)
        if not has_values(x):
            return top
        predicted = self._second(x) if opt.biases else self._first(x)
        objects = self._objects_of_rows(rows, len(x)) if opt.biases else self._objects_of_cells(rows)
        for each, (made, there) in enumerate(zip(zip(*predicted, strict=True), objects, strict=True)):
            self._count(top[each], made, there)
        return top

    def _first(self, x: Tensor) -> Predictions:
        """Label, score (N, P) and corners (N, P, 4) of YOLO 1's predictions, ordered by cell."""
        classes, object_, boxes = self.parts(x)
        best, label = classes.max(1, keepdim=True)
        score = self._score(object_, best.expand_as(object_)).mT.flatten(1)
        return label.expand_as(object_).mT.flatten(1), score, corners(self.in_image(boxes).movedim(1, 2).flatten(1, 2))

    def _second(self, x: Tensor) -> Predictions:
        """The same for YOLO 2."""
        cells = apart(x, self.opt.num_object)
        boxes = corners(boxes_of(cells[..., :2].sigmoid(), cells[..., 2:4], self.anchors))
        best, label = cells[..., 5:].softmax(-1).max(-1)
        score = self._score(cells[..., 4].sigmoid(), best)
        return tuple(y.movedim(1, 3).flatten(1, 3) for y in (label, score, boxes))  # type: ignore[return-value]

    def _score(self, object_: Tensor, best: Tensor) -> Tensor:
        return {OBJ: object_, PROB: best}.get(self.opt.score_type, object_ * best)

    def _objects_of_cells(self, rows: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Label, corners and the difficult flag of each object, for each image."""
        cells = self.opt.side**2
        rows = rows.reshape(len(rows), 7 * cells)
        label, box = rows[:, 2 * cells : 3 * cells].long(), corners(rows[:, 3 * cells :].unflatten(1, (cells, 4)))
        there, hard = rows[:, cells : 2 * cells] != 0, rows[:, :cells] == 1
        self._known(rows[:, 2 * cells : 3 * cells], there)
        return [(label[i][on], box[i][on], hard[i][on]) for i, on in enumerate(there)]

    def _objects_of_rows(self, rows: Tensor, images: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        truth = read_truth(self, rows, self.opt.num_class, images)
        self._known(truth.label, truth.seen)
        box = corners(truth.box)
        return [(truth.label[i][on], box[i][on], truth.label[i][on] < 0) for i, on in enumerate(truth.seen)]

    def _known(self, label: Tensor, there: Tensor) -> None:
        wrong = there & ~((label >= 0) & (label < self.opt.num_class))
        if wrong.any():
            held = f"{self.bottom_name(1)} holds the label {number_text(float(label[wrong][0]))}"
            self.error(f"{held}, expected 0 to {self.opt.num_class - 1}; correct the data")

    def _count(self, top: Tensor, made: Predictions, there: tuple[Tensor, Tensor, Tensor]) -> None:
        """Fill the row of one image."""
        opt, (label, score, box), (real, real_box, hard) = self.opt, made, there
        top[: opt.num_class] = torch.bincount(real[~hard], minlength=opt.num_class)
        if opt.nms >= 0:
            kept = nms(box, score, float(np.nextafter(np.float32(opt.nms), np.float32(-1))))
            kept = kept[score[kept] >= 0.005] if opt.biases else kept
        else:
            kept = torch.argsort(score, descending=True, stable=True)
        kept = kept[torch.argsort(label[kept], stable=True)]
        label, score, box = label[kept], score[kept], box[kept]
        share = overlaps(box, real_box).masked_fill(label.unsqueeze(1) != real, -1)
        share = torch.cat([share, share.new_full((len(share), 1), -1)], 1)
        most, object_ = share.max(1)
        near = most >= max(opt.threshold, 0)
        order = torch.arange(len(kept), device=top.device)
        first = torch.full_like(order, len(kept), dtype=torch.long).new_full((share.shape[1],), len(kept))
        first = first.scatter_reduce(0, object_, order.where(near, len(kept)), "amin")
        right = near & (first[object_] == order)
        wrong = ~right & (near if opt.biases else torch.ones_like(near))
        if opt.biases:
            wrong |= ~(label.unsqueeze(1) == real).any(1)
        spared = near & torch.cat([hard, hard.new_zeros(1)])[object_]
        rows = torch.stack([label.to(score), score, (right & ~spared).to(score), (wrong & ~spared).to(score)], 1)
        top[opt.num_class : opt.num_class + rows.numel()] = rows.flatten()


class EvalDetection(_EvalDetection, bottoms=(2, 3)):
    """Marks predictions of YOLO 1, or of YOLO 2 if `biases` is given, as correct or wrong, for the average precision.

    bottoms: YOLO 1: predictions and truth as DetectionLoss has them. YOLO 2: map (N, B (5 + C), S, S) and truth
    (N, T 5) as RegionLoss has them. Optionally the image, which is not read
    top (N, C + 4 S S B): the number of non-difficult objects of each class; then for each prediction its label, score,
    1 if it is correct and 1 if it is wrong, sorted by label and score, padded with zeros

    score_type: OBJ objectness, PROB the largest class score, MULTIPLY their product. nms >= 0 drops boxes that overlap
    a better one of any class by nms or more. The first box is correct whose best overlap with an object of its class is
    `threshold` or more. Detections of difficult objects are neither correct nor wrong.
    For YOLO 2, as in the source, scores below 0.005 are omitted, and predictions that do not overlap an object of their
    class by `threshold` are neither correct nor wrong.
    """

    exempt = constant = (0, 1, 2)
    effects = Effects.VALUES

    def setup(self, x: Tensor, rows: Tensor, *other: Tensor) -> None:
        opt = self.opt
        if not opt.biases:
            self.check_grid(x, rows)
            return
        self.anchors = anchors_of(self, opt.num_object)
        check_map(self, 0, x, opt.num_object, opt.num_class)
        check_truth(self, x, rows)
        fact = f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected {opt.side} x {opt.side} cells: side"
        self.require(tuple(x.shape[2:]) == (opt.side, opt.side), fact)
        self.require(opt.nms >= 0, "needs nms with biases (YOLO 2); give a threshold, 0 or more")

    def forward(self, x: Tensor, rows: Tensor, *other: Tensor) -> Tensor:
        return untraced(self._evaluate)(x, rows)


class SegmentationEvaluate(Layer, bottoms=2):
    """Intersection over union of masks and the truth for each channel, in the first image of the batch.

    bottoms: masks x (N, C, H, W) and truth t of the same shape   top (1, 1, 1, C)

        y[c] = cells with x > threshold and t > threshold / cells with either; 0 where no cell has both

    Source: eric612/MobileNet-YOLO, segmentation_evaluate_layer.cpp, which resizes x in 8 bits where the sizes differ.
    """

    exempt = constant = (0, 1)

    def setup(self, x: Tensor, truth: Tensor) -> None:
        self.require(self.opt.HasField("num_classes"), "needs num_classes")
        fact = f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, {self.bottom_name(1)} {shape_text(truth.shape)}"
        fits = x.dim() == 4 and x.shape == truth.shape and x.shape[0] > 0
        self.require(fits, f"{fact}; expected the same (N, C, H, W): write an Interp layer before")

    def forward(self, x: Tensor, truth: Tensor) -> Tensor:
        found, there = (y[0].detach() > self.opt.threshold for y in (x, truth))
        both, either = ((found & there).sum((1, 2)), (found | there).sum((1, 2)))
        return (both / either.clamp(min=1)).to(x.dtype).view(1, 1, 1, -1)
