"""DetectionEvaluate: marks detections as correct or wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from caffe.layers.base import Effects, Layer, has_values, shape_text
from caffe.layers.detection.matching import Truth, read_truth
from caffe.layers.detection.results import check_resize, in_pixels, is_missing, read_sizes
from caffe.layers.support.boxes import overlaps
from caffe.layers.support.exact import is_exact
from caffe.layers.support.values import untraced

__all__ = ["DetectionEvaluate"]


class _Judge(Layer, abstract=True):
    """Base of DetectionEvaluate: compares detections with the ground truth."""

    marks_detections = True

    sizes: list[tuple[str, int, int]]
    resize: Any
    next: int

    def _check(self, found: Tensor, truth: Tensor) -> None:
        for index, x, wanted in ((0, found, 7), (1, truth, 8)):
            fact = f"{self.bottom_name(index)} has shape {shape_text(x.shape)}, expected (1, 1, rows, {wanted})"
            self.require(x.dim() == 4 and x.shape[-1] == wanted, fact)

    def _detections(self, rows: Tensor, background: int) -> Tensor:
        """The rows (K, 7) that are valid detections. In a gradient check rows may hold random numbers."""
        rows = rows[(rows[:, 0] != -1) & (rows[:, 1] != -1)]
        wrong = rows[:, 1] == background
        if wrong.any() and not is_exact():
            self.error(f"a detection has the label {background}, which is background_label_id")
        return rows[~wrong]

    def _judged(self, cells: Tensor, truth: Truth) -> Tensor:
        """The output rows of the detections (K, 7)."""
        classes = self.opt.num_classes
        known = torch.isin(_key(cells[:, 0], cells[:, 1], classes), _key(truth.image, truth.label, classes))
        score = torch.where(known, -cells[:, 2], 0)  # detections without ground truth are wrong and keep their order
        cells = cells[torch.from_numpy(np.lexsort((score.numpy(), cells[:, 1].numpy(), cells[:, 0].numpy())))]
        right, wrong = cells.new_zeros(len(cells)), cells.new_ones(len(cells))
        if len(truth.image) and len(cells):
            share = self._overlaps(cells, truth)
            same = _key(cells[:, 0], cells[:, 1], classes).unsqueeze(1) == _key(truth.image, truth.label, classes)
            most, box = share.masked_fill(~same, -1).max(1)
            near = most >= self.opt.overlap_threshold
            passed = near & truth.difficult[box] & (not self.opt.evaluate_difficult_gt)
            place = torch.arange(len(cells)).where(near & ~passed, len(cells))
            first = torch.full((len(truth.image),), len(cells)).scatter_reduce(0, box, place, "amin")
            right = (place == first[box]) & (place < len(cells))
            right, wrong = right.to(cells.dtype), (~right & ~passed).to(cells.dtype)
        return torch.cat([cells[:, :3], right.unsqueeze(1), wrong.unsqueeze(1)], 1)

    def _overlaps(self, cells: Tensor, truth: Truth) -> Tensor:
        """The overlap of each detection with each ground truth box (K, T)."""
        if not self.sizes:
            return overlaps(cells[:, 3:], truth.box)
        image = cells[:, 0].long()
        own, other = cells[:, 3:].clone(), truth.box.clone()
        for each in torch.cat([image, truth.image]).unique().tolist():
            _, height, width = self.sizes[(self.next + each) % len(self.sizes)]
            for boxes, mine in ((own, image == each), (other, truth.image == each)):
                boxes[mine] = in_pixels(boxes[mine], (height, width), self.resize)
        return overlaps(own, other, 1)


class DetectionEvaluate(_Judge, bottoms=2):
    """Marks detections as correct or wrong, from which a test computes the average precision (docs/solvers.md).

    bottoms: detections (1, 1, K, 7), the rows of DetectionOutput; truth (1, 1, T, 8), as for MultiBoxLoss
    top (1, 1, C' + K', 5): a row [-1, label, ground truth boxes, -1, -1] for each class but background_label_id, then a
        row [image, label, score, correct, wrong] for each detection, sorted by image, label and score

    A detection is correct if its best overlap with a box of its image and label reaches overlap_threshold, and no
    better detection has that box. evaluate_difficult_gt: false ignores difficult boxes and detections of them. With
    name_size_file (lines `name height width`, repeated from the first) boxes are compared in whole pixels.
    Source: Liu et al., arXiv:1512.02325 (SSD), detection_evaluate_layer.cpp, whose name_size_file has no line for an
    image without a detection. A missing file is an error with the first batch only.
    """

    constant = (0, 1)
    effects = Effects.VALUES

    def setup(self, found: Tensor, truth: Tensor) -> None:
        opt = self.opt
        self.require(opt.num_classes > 0, "needs num_classes, background included")
        self.labels = [label for label in range(opt.num_classes) if label != opt.background_label_id]
        fact = f"overlap_threshold is {opt.overlap_threshold:g}, expected a number above 0"
        self.require(opt.overlap_threshold > 0, fact)
        self.sizes = []
        if opt.name_size_file and not is_missing(self, opt.name_size_file):
            self.sizes = read_sizes(self, opt.name_size_file)
        self.resize = opt.resize_param if opt.HasField("resize_param") else None
        if self.resize is not None:
            check_resize(self, self.resize)
        if opt.name_size_file:
            self.effects |= Effects.CALLS
        self.next = 0
        self._check(found, truth)

    def forward(self, found: Tensor, truth: Tensor) -> Tensor:
        self._check(found, truth)
        return untraced(self._evaluate)(found, truth)

    @torch.no_grad()
    def _evaluate(self, found: Tensor, rows: Tensor) -> Tensor:
        if not has_values(found):
            return found.new_empty(1, 1, len(self.labels) + found.shape[2], 5)
        if self.opt.name_size_file and not self.sizes:
            self.sizes = read_sizes(self, self.opt.name_size_file)
        background = self.opt.background_label_id
        truth = read_truth(self, rows.detach().cpu(), self.opt.num_classes, background)
        counted = truth.label if self.opt.evaluate_difficult_gt else truth.label[~truth.difficult]
        totals = torch.bincount(counted, minlength=self.opt.num_classes)[self.labels].to(found.dtype)
        head = found.new_full((len(self.labels), 5), -1, device="cpu")
        head[:, 1], head[:, 2] = head.new_tensor(self.labels), totals
        cells = self._detections(found.detach().cpu().reshape(-1, 7), background)
        judged = self._judged(cells, truth)
        if self.sizes:
            images = 1 + int(max(-1, *cells[:, 0].tolist(), *truth.image.tolist()))
            self.next = (self.next + images) % len(self.sizes)
        return torch.cat([head, judged])[None, None].to(found.device)


def _key(image: Tensor, label: Tensor, classes: int) -> Tensor:
    """A number that identifies an image and a label."""
    return image.long() * classes + label.long()
