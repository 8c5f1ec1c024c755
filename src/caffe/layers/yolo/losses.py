"""Losses of YOLO 2 and 3."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from caffe.layers.base import Effects, Loss, has_values, shape_text
from caffe.layers.support.boxes import overlaps
from caffe.layers.yolo.cells import (
    Truth,
    anchors_of,
    apart,
    boxes_of,
    check_map,
    check_truth,
    corners,
    lossy,
    read_truth,
    shapes_overlap,
)
from caffe.proto import caffe_pb2

__all__ = ["RegionLoss", "YoloSeg", "Yolov3"]

MSE, IOU, GIOU, DIOU, CIOU = caffe_pb2.Yolov3Parameter.IouLoss.values()


class _Grid(Loss, abstract=True):
    """Base of both losses: assigns each truth box to a cell and an anchor."""

    def meant(self, x: Tensor, truth: Truth, anchor: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """The index (N, T) of each box's cell in (A, H, W), or A H W for ignored boxes, and its cell (N, T, 2)."""
        height, width = x.shape[2:4]
        cells = x.new_tensor([width, height])
        cell = (truth.box[..., :2] * cells).nan_to_num(0).long().clamp(min=0)
        cell = torch.minimum(cell, cells.long() - 1)
        place = (anchor * height + cell[..., 1]) * width + cell[..., 0]
        return place.where(counts, x.shape[1] * height * width), cell

    def found(self, boxes: Tensor, truth: Truth) -> Tensor:
        """The best overlap (N, A, H, W) of each predicted box with the truth."""
        every = overlaps(corners(boxes.flatten(1, 3)), corners(truth.box)).where(truth.seen.unsqueeze(1), 0)
        if not every.shape[2]:
            return boxes[..., 0] * 0
        return every.amax(2).view(boxes.shape[:4])


def _first(place: Tensor, last: bool = False) -> Tensor:
    """A mask (N, T) of the first, or the last, box of those with the same index."""
    same = place.unsqueeze(2) == place.unsqueeze(1)
    return ~(same.triu(1) if last else same.tril(-1)).any(2)


def _put(base: Tensor, place: Tensor, chosen: Tensor, values: Tensor) -> Tensor:
    """`base` (N, P, K) with the `chosen` rows of `values` (N, T, K) written at the indices `place` (N, T)."""
    room = torch.cat([base, base[:, :1] * 0], 1)
    index = place.where(chosen, base.shape[1]).unsqueeze(-1).expand_as(values)
    return room.scatter(1, index, values)[:, :-1]


def _at(x: Tensor, place: Tensor) -> Tensor:
    """The rows (N, T, K) of x (N, P, K) at the indices (N, T). Ignored boxes read the last row."""
    index = place.clamp(max=x.shape[1] - 1).unsqueeze(-1).expand(-1, -1, x.shape[2])
    return x.gather(1, index)


class _RegionLoss(_Grid, abstract=True):
    """Base of RegionLoss: helper methods."""

    anchors: list[tuple[float, float]]

    runs: Tensor

    def _deltas(self, cells: Tensor, truth: Truth) -> Tensor:
        opt, shape = self.opt, cells.shape
        centre, likely = cells[..., :2].sigmoid(), cells[..., 4:5].sigmoid()
        classes, size = cells[..., 5:].softmax(-1), cells[..., 2:4]
        boxes = boxes_of(centre, size, self.anchors)
        known = self.found(boxes, truth).unsqueeze(-1) > opt.thresh
        none = (opt.noobject_scale * likely * likely * (1 - likely)).masked_fill(known, 0)
        early = (self.runs < 12800 // max(1, shape[0])).to(cells)
        drawn = 0.01 * early * torch.cat([(centre - 0.5) * centre * (1 - centre), size], -1)
        delta = torch.cat([drawn, none, classes * 0], -1)

        anchors = cells.new_tensor(self.anchors)
        in_cells = truth.box * cells.new_tensor([shape[3], shape[2]]).repeat(2)
        if opt.bias_match:
            fit = shapes_overlap(in_cells[..., 2:], anchors)
        else:
            first, cell = self.meant(cells, truth, truth.label * 0, truth.there)
            sizes = boxes.permute(0, 2, 3, 1, 4).flatten(1, 2).flatten(2)  # (N, H W, A 4)
            here = _at(sizes, first).unflatten(-1, (-1, 4))[..., 2:]
            fit = shapes_overlap(truth.box[..., None, 2:], here)[..., 0, :]
        anchor = fit.argmax(-1)
        place, cell = self.meant(cells, truth, anchor, truth.there)
        flat = [part.flatten(1, 3) for part in (cells, centre, likely, classes, boxes)]
        given, own, score, guess, box = (_at(part, place) for part in flat)
        scale = torch.full_like(score, opt.coord_scale)
        if not opt.rescore:
            scale = scale * (2 - truth.box[..., 2:3] * truth.box[..., 3:4])
        goal = _paired(box, truth.box) if opt.rescore else 1
        near = scale * (own - (in_cells[..., :2] - cell)) * own * (1 - own)
        far = scale * (given[..., 2:4] - (in_cells[..., 2:] / anchors[anchor]).log())
        object_ = opt.object_scale * (score - goal) * score * (1 - score)
        named = torch.nn.functional.one_hot(truth.label.clamp(0, opt.num_class - 1), opt.num_class)
        values = torch.cat([near, far, object_, opt.class_scale * (guess - named)], -1)
        chosen = truth.there & _first(place, last=True)
        values = values.where(chosen.unsqueeze(-1), 0)
        return _put(delta.flatten(1, 3), place, chosen, values).view(shape)


class RegionLoss(_RegionLoss, bottoms=2):
    """The loss of YOLO 2.

    bottoms: map (N, num (5 + num_class), H, W); truth (N, T 5), rows [label, x, y, w, h], or SSD's   top: loss ()

        loss = sum of d^2 / N, its gradient d / N, with d, s the sigmoid, i the column and a the anchor
        objectness   noobject_scale s (1 - s) s, 0 above thresh; at the cell and best anchor of each box of the truth:
        objectness   object_scale (s - goal) s (1 - s); goal is 1, with rescore the overlap with the truth
        x, y  k (s - (x W - i)) s (1 - s);  w, h  k (tw - log(w W / a));  classes  class_scale (p - 1 or 0)
        k = coord_scale, without rescore times 2 - w h; p the softmax

    bias_match selects the best anchor by the anchor's size, else by the predicted size. For the first 12800 images
    all boxes are also trained towards their anchors, k = 0.01. Source: arXiv:1612.08242; eric612/MobileNet-YOLO.
    """

    effects = Effects.VALUES | Effects.BUFFERS

    def setup(self, x: Tensor, rows: Tensor) -> None:
        opt = self.opt
        for name, value in (("num", opt.num), ("num_class", opt.num_class)):
            self.require(value > 0, f"{name} must be given and positive")
        self.require(opt.coords == 4, f"coords is {opt.coords}, expected 4")
        check_map(self, 0, x, opt.num, opt.num_class)
        check_truth(self, x, rows)
        self.anchors = anchors_of(self, opt.num)
        self.register_buffer("runs", torch.zeros(1))

    def forward(self, x: Tensor, rows: Tensor) -> Tensor:
        cells = apart(x, self.opt.num)
        delta = self._deltas(cells, read_truth(self, rows, self.opt.num_class, len(x)))
        if has_values(x):
            self.runs.add_(1)
        grad = delta.movedim(-1, 2).reshape(x.shape) / len(x)
        return lossy(x, delta.square().sum() / len(x), grad)


class _Yolov3(_Grid, abstract=True):
    """Base of Yolov3: helper methods."""

    anchors: list[tuple[float, float]]

    def _deltas(self, swapped: Tensor, truth: Truth) -> tuple[Tensor, Tensor]:
        """The deltas d, of the map's shape, and the additional loss term of iou_loss."""
        opt, shape = self.opt, swapped.shape
        mine = [self.anchors[i] for i in opt.mask]
        boxes = boxes_of(swapped[..., :2], swapped[..., 2:4], mine, opt.anchors_scale)
        known = self.found(boxes, truth).unsqueeze(-1) > opt.thresh
        none = swapped[..., 4:5].masked_fill(known, 0)
        delta = torch.cat([swapped[..., :4] * 0, none, swapped[..., 5:] * 0], -1)

        side = swapped.new_tensor([shape[3], shape[2]])
        pixels = truth.box[..., 2:] * side * opt.anchors_scale
        every = swapped.new_tensor(self.anchors)
        best = shapes_overlap(pixels, every).argmax(-1)
        numbers = torch.tensor(list(opt.mask), device=swapped.device)
        is_mine = best.unsqueeze(-1) == numbers
        counts = truth.there & is_mine.any(-1)
        anchor = is_mine.int().argmax(-1)
        place, cell = self.meant(swapped, truth, anchor, counts)
        given, box = (_at(part.flatten(1, 3), place) for part in (swapped, boxes))
        more = swapped.sum() * 0
        if opt.iou_loss == MSE:
            scale = opt.coord_scale * (2 - truth.box[..., 2:3] * truth.box[..., 3:4])
            near = given[..., :2] - (truth.box[..., :2] * side - cell)
            sides = scale * torch.cat([near, given[..., 2:4] - (pixels / every[best]).log()], -1)
        else:
            better = _paired(box, truth.box) - farness(box, truth.box, opt.iou_loss == CIOU)[0]
            if opt.iou_loss in (IOU, GIOU):
                better = _generalized(box, truth.box)
            more = opt.iou_normalizer * (1 - better).where(counts.unsqueeze(-1), 0).sum()
            sides = opt.iou_normalizer * _sides(box, truth.box, given[..., 2:4], opt.iou_loss)
        object_ = (given[..., 4:5] - 1) * (opt.object_scale if opt.use_logic_gradient else 1)
        values = torch.cat([sides, object_], -1)
        last = counts & _first(place, last=True)
        flat = delta.flatten(1, 3)
        front = _put(flat[..., :5], place, last, values.where(last.unsqueeze(-1), 0))
        classes = self._classes(flat[..., 5:], place, counts, given[..., 5:], truth.label)
        return torch.cat([front, classes], -1).view(shape), more

    def _classes(self, flat: Tensor, place: Tensor, counts: Tensor, given: Tensor, label: Tensor) -> Tensor:
        """The class deltas (N, A H W, C): all classes for the first box of a cell, only the label's for later boxes."""
        opt = self.opt
        named = torch.nn.functional.one_hot(label.clamp(0, opt.num_class - 1), opt.num_class).to(given)
        values = opt.class_scale * (given - named)
        if opt.use_focal_loss:
            p = (given * named).sum(-1, keepdim=True) + 1e-15
            values = values * 0.5 * -(1 - p) * (2 * p * p.log() + p - 1)
        first = counts & _first(place)
        made = _put(flat, place, first, values.where(first.unsqueeze(-1), 0))
        room = torch.cat([made, made[:, :1] * 0], 1).flatten(1)
        at = place.where(counts & ~first, flat.shape[1]) * opt.num_class + label.clamp(0, opt.num_class - 1)
        score = (given * named).sum(-1) - 1
        return room.scatter(1, at, score).view(len(flat), -1, opt.num_class)[:, :-1]


class Yolov3(_Yolov3, bottoms=2):
    """The loss of YOLO 3 for one scale; k_o is object_scale.

    bottoms: map (N, num (5 + num_class), H, W); truth (N, T 5), rows [label, x, y, w, h], or SSD's   top: loss ()

        loss = sum of d^2 / N, its gradient d / N, with d, s the sigmoid, i the column, a the anchor, A anchors_scale
        objectness   s, 0 above thresh; at the best anchor in `mask` of each box s - 1 (use_logic_gradient: k_o (s - 1))
        x, y   k (s - (x W - i))        w, h   k (tw - log(w W A / a)),  k = coord_scale (2 - w h)
        classes   class_scale (s - 1 or 0) (use_focal_loss: times 0.5 (1 - p) (1 - p - 2 p log p), p the s of the label)

    use_logic_gradient multiplies the gradient of all but w, h by s (1 - s). iou_loss IOU, GIOU, DIOU, CIOU: x, y, w, h
    add iou_normalizer (1 - GIOU), or 1 - DIOU, 1 - CIOU as in darknet (arXiv:1911.08287), d the slope.
    Source: arXiv:1804.02767; eric612/MobileNet-YOLO, yolov3_layer.cpp.
    """

    without_effect = (
        "noobject_scale",
        "side",
    )

    effects = Effects.VALUES

    def setup(self, x: Tensor, rows: Tensor) -> None:
        opt = self.opt
        later = [name for name in ("iou_thresh", "accumulate", "label_smooth_eps") if getattr(opt, name)]
        later += ["max_delta"] if opt.HasField("max_delta") else []
        self.require(not later, f"{', '.join(later)} is not implemented; remove it")
        both = opt.iou_loss != MSE and opt.use_logic_gradient
        self.require(not both, "use_logic_gradient works with iou_loss: MSE only; remove one of the two")
        check_map(self, 0, x, opt.num, opt.num_class)
        check_truth(self, x, rows)
        self.anchors = anchors_of(self)
        fact = f"has {len(opt.mask)} values of mask, expected {opt.num} numbers below {len(self.anchors)}"
        self.require(len(opt.mask) == opt.num and max(opt.mask) < len(self.anchors), f"{fact}, the anchors in biases")
        self.require(opt.anchors_scale > 0, "anchors_scale must be positive")

    def forward(self, x: Tensor, rows: Tensor) -> Tensor:
        cells = apart(x, self.opt.num)
        swapped = torch.cat([cells[..., :2].sigmoid(), cells[..., 2:4], cells[..., 4:].sigmoid()], -1)
        delta, more = self._deltas(swapped, read_truth(self, rows, self.opt.num_class, len(x)))
        grad = delta
        if self.opt.use_logic_gradient:
            slope = swapped * (1 - swapped)
            grad = torch.cat([delta[..., :2] * slope[..., :2], delta[..., 2:4], delta[..., 4:] * slope[..., 4:]], -1)
        counted = delta if self.opt.iou_loss == MSE else delta[..., 4:]
        loss = (counted.square().sum() + more) / len(x)
        return lossy(x, loss, grad.movedim(-1, 2).reshape(x.shape) / len(x))


def _paired(a: Tensor, b: Tensor) -> Tensor:
    """The overlap (..., 1) of each box of a with the box of b at the same index, both as centre and size."""
    return overlaps(corners(a).unsqueeze(-2), corners(b).unsqueeze(-2)).squeeze(-1)


def _generalized(a: Tensor, b: Tensor) -> Tensor:
    """The generalized overlap (..., 1): the overlap minus the uncovered share of the hull (arXiv:1902.09630)."""
    p, t = corners(a), corners(b)
    hull = (torch.maximum(p, t)[..., 2:] - torch.minimum(p, t)[..., :2]).prod(-1, keepdim=True)
    iou = _paired(a, b)
    both = (a[..., 2:].prod(-1, keepdim=True) + b[..., 2:].prod(-1, keepdim=True)) / (1 + iou)
    return iou - (hull - both) / hull.clamp(min=1e-38)


def farness(box: Tensor, truth: Tensor, shape: bool) -> tuple[Tensor, Tensor]:
    """The term (..., 1) that DIOU takes from the overlap, or with `shape` CIOU, and its slope (..., 4) by x, y, w, h.

        d^2 / c^2, d the distance of the centres, c the diagonal of the hull; CIOU adds a v, a = v / (1 - IOU + v),
        v = 4 / pi^2 (atan(w / h of the truth) - atan(w / h))^2, whose slope leaves out 1 / (w^2 + h^2)

    Source: Zheng et al., arXiv:1911.08287; darknet's box.c.
    """
    p, t = corners(box), corners(truth)
    offset, hull = box[..., :2] - truth[..., :2], torch.maximum(p, t)[..., 2:] - torch.minimum(p, t)[..., :2]
    distance = offset.square().sum(-1, keepdim=True)
    diagonal = hull.square().sum(-1, keepdim=True).clamp(min=1e-38)
    near, far = -(p[..., :2] < t[..., :2]).to(box), (p[..., 2:] > t[..., 2:]).to(box)  # slopes of the hull's corners
    shrink = 2 * hull * distance / diagonal.square()
    slope = torch.cat([2 * offset / diagonal - shrink * (far + near), -shrink * (far - near) / 2], -1)
    if not shape:
        return distance / diagonal, slope
    turn = torch.atan2(truth[..., 2:3], truth[..., 3:4]) - torch.atan2(box[..., 2:3], box[..., 3:4])
    v = 4 / math.pi**2 * turn.square()
    weight = v / (1 - _paired(box, truth) + v + 1e-6)
    more = weight * 8 / math.pi**2 * turn * torch.cat([-box[..., 3:4], box[..., 2:3]], -1)
    return distance / diagonal + weight * v, slope + torch.cat([more * 0, more], -1)


def _sides(box: Tensor, truth: Tensor, logs: Tensor, kind: int) -> Tensor:
    """The negative derivative (..., 4) of the overlap of an iou_loss by x, y, log w and log h.

    As in the source, the intersection is the product of both common lengths, even if these are negative.
    """
    p, t = corners(box), corners(truth)
    starts, ends = (p[..., :2], t[..., :2]), (p[..., 2:], t[..., 2:])
    shared = torch.minimum(*ends) - torch.maximum(*starts)
    size, other = ends[0] - starts[0], shared.flip(-1)
    area = shared.prod(-1, keepdim=True)
    union = size.prod(-1, keepdim=True) + truth[..., 2:].prod(-1, keepdim=True) - area
    by_area = torch.cat([-other.where(starts[0] > starts[1], 0), other.where(ends[0] < ends[1], 0)], -1)
    by_union = torch.cat([-size.flip(-1), size.flip(-1)], -1) - by_area
    slope = (union * by_area - area * by_union) / union.square()
    if kind == GIOU:
        hull = torch.maximum(*ends) - torch.minimum(*starts)
        other, hull = hull.flip(-1), hull.prod(-1, keepdim=True)
        by_hull = torch.cat([-other.where(starts[0] < starts[1], 0), other.where(ends[0] > ends[1], 0)], -1)
        slope = slope + (hull * by_union - union * by_hull) / hull.square()
    near, far = slope[..., :2], slope[..., 2:]
    made = torch.cat([near + far, (far - near) / 2], -1)
    if kind in (DIOU, CIOU):
        inside = (shared > 0).all(-1, keepdim=True)
        made = made.where(inside, 0) - farness(box, truth, kind == CIOU)[1]
    return -torch.cat([made[..., :2], made[..., 2:] * logs.exp()], -1).nan_to_num(0, 0, 0)


class YoloSeg(Loss, bottoms=(2, 3)):
    """Squared difference between a sigmoid and a mask, with the gradient of a cross entropy.

    bottoms: scores x; mask t with as many elements; optionally a blob that is not read   top: loss ()

        d = object_scale (s(x) - t);  loss = sum of d^2 / N, its gradient d / N;  s the sigmoid

    num_class, class_scale and use_logic_gradient have no effect, as in the source.
    Source: eric612/MobileNet-YOLO, yolo_seg.cpp.
    """

    without_effect = (
        "num_class",
        "class_scale",
        "use_logic_gradient",
    )

    constant = (1, 2)
    exempt = (1, 2)
    effects = Effects.NONE

    def setup(self, x: Tensor, mask: Tensor, *other: Tensor) -> None:
        self.require(not self.opt.use_hardsigmoid, "use_hardsigmoid is not implemented; remove it")
        fact = f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, {self.bottom_name(1)} {shape_text(mask.shape)}"
        self.require(x.dim() > 0 and x.numel() == mask.numel(), f"{fact}; expected as many elements")

    def forward(self, x: Tensor, mask: Tensor, *other: Tensor) -> Tensor:
        delta = self.opt.object_scale * (x.sigmoid() - mask.detach().view(x.shape))
        return lossy(x, delta.square().sum() / len(x), delta / len(x))
