"""The detection losses of MS-CNN and Cascade R-CNN, which choose the background cells that they train on."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe.layers.base import Effects, Layer, Loss, shape_text
from caffe.layers.loss import FLT_MIN, floored
from caffe.layers.regions.cascade import normal_of
from caffe.layers.support.exact import is_exact, tell
from caffe.layers.support.labels import number_text
from caffe.layers.support.values import can_look, has_values, untraced

__all__ = ["Cells", "Detection", "DetectionGroupLoss", "check_groups", "check_mined", "classes_of", "counted"]
__all__ += ["fields_of", "mined_loss", "places"]


class Cells(NamedTuple):
    """What maps predict, and their truth: each cell has one field, a box of a fixed size around it."""

    scores: Tensor  # (N, C, H, W)
    deltas: Tensor  # (N, 4, H, W)
    label: Tensor  # (N, H, W), integers
    box: Tensor  # (N, 4, H, W): x and y of the centre, width, height
    overlap: Tensor  # (N, H, W), of the field with the truth

    @classmethod
    def of(cls, scores: Tensor, deltas: Tensor, truth: Tensor) -> Cells:
        """The truth (N, 6, H, W) has the label, x, y, w, h and the overlap in its channels."""
        truth = truth.detach()
        return cls(scores, deltas, truth[:, 0].nan_to_num(-1, -1, -1).long(), truth[:, 1:5], truth[:, 5])


def places(x: Tensor, stride: float) -> Tensor:
    """The centres (2, H, W) of the cells of a map (..., H, W), in pixels."""
    down, across = (torch.arange(n, device=x.device, dtype=x.dtype) for n in x.shape[-2:])
    rows, columns = down.unsqueeze(1).expand(x.shape[-2:]), across.expand(x.shape[-2:])
    return (torch.stack([columns, rows]) + 0.5) * stride


def check_mined(layer: Layer, x: Tensor, truth: Tensor) -> None:
    """Check the options and bottoms of MS-CNN's layers: x (N, cls_num + 4, H, W), truth (N, 6, H, W)."""
    opt = layer.opt
    layer.require(opt.cls_num > 1, f"cls_num is {opt.cls_num}, expected the classes, background included")
    layer.require(opt.coord_num == 4, f"coord_num is {opt.coord_num}, expected 4")
    layer.require(not opt.objectness or opt.cls_num == 2, "objectness needs cls_num: 2")
    for name in ("field_h", "field_w", "downsample_rate"):
        layer.require(getattr(opt, name) > 0, f"{name} must be given and positive")
    layer.require(opt.field_whr > 1 and opt.field_xyr > 0, "field_whr must be above 1, and field_xyr above 0")
    for i, y, channels in ((0, x, opt.cls_num + 4), (1, truth, 6)):
        fits = y.dim() == 4 and y.shape[1] == channels and (y.shape[0], *y.shape[2:]) == (x.shape[0], *x.shape[2:])
        fact = f"{layer.bottom_name(i)} has shape {shape_text(y.shape)}, expected ({x.shape[0]}, {channels}, H, W)"
        layer.require(fits, fact)


def classes_of(layer: Layer, cells: Cells, index: int, least: int) -> Tensor:
    """The class of each cell: its label, or 1 for all above 0 with `objectness`. Checks that `least` is the lowest."""
    label, most = cells.label, cells.scores.shape[1]
    label = label.clamp(max=1) if layer.opt.objectness else label
    if can_look(label) and not is_exact():
        loss = layer.spec.loss_param
        wrong = (label < least) | (label >= most)
        if loss.HasField("ignore_label"):
            wrong &= label != loss.ignore_label
        if wrong.any():
            held = f"{layer.bottom_name(index)} holds the label {number_text(float(label[wrong][0]))}"
            layer.error(f"{held}, expected 0 to {most - 1} for {most} classes; correct the data")
    return label


def counted(layer: Layer, label: Tensor) -> Tensor:
    """A mask of the labels that are not loss_param.ignore_label."""
    loss = layer.spec.loss_param
    return label != loss.ignore_label if loss.HasField("ignore_label") else torch.ones_like(label, dtype=torch.bool)


def weights(cells: Cells, kept: Tensor, base: Tensor, share: float, apart: bool = False) -> Tensor:
    """`base` weights, scaled so that those of the `kept` foreground sum to `share` of the number of kept cells.

    Without foreground, background is scaled only if `apart` is set, as in Cascade R-CNN.
    """
    front = cells.label > 0
    number = kept.sum()
    ahead, behind = (base.where(kept & part, 0).sum() for part in (front, ~front))
    scaled = base * torch.where(front, share * number / ahead, (1 - share) * number / behind.clamp(min=FLT_MIN))
    return scaled.where((ahead != 0) | (~front & apart), base)


def combined(layer: Layer, cells: Cells, classes: Tensor, kept: Tensor, goal: Tensor, weight: Tensor) -> Tensor:
    """The top (1, 1, 1, 2): the loss of the `kept` cells, and the part of the boxes, which has no gradient."""
    named = classes.clamp(0, cells.scores.shape[1] - 1).unsqueeze(1)
    log = floored(F.log_softmax(cells.scores, 1).gather(1, named).squeeze(1), math.log(FLT_MIN))
    kept = kept & counted(layer, classes)
    cost = -(log * weight).where(kept, 0).sum() / kept.sum().clamp(min=1)
    boxes = (kept & (cells.label > 0) & counted(layer, cells.label)).unsqueeze(1)
    off = (cells.deltas - goal).where(boxes, 0)
    smooth = layer.opt.bb_smooth if hasattr(layer.opt, "bb_smooth") else layer.opt.bbox_loss_type == "Smooth_L1"
    far = F.smooth_l1_loss(off, torch.zeros_like(off), reduction="sum") if smooth else off.square().sum() / 2
    far = getattr(layer.opt, "lambda") * far / (4 * boxes.sum()).clamp(min=1)
    if is_exact():
        tell("the second value of the top has no gradient")
        return torch.stack([cost + far, far]).view(1, 1, 1, 2)
    return torch.stack([cost + far, far.detach()]).view(1, 1, 1, 2)


def targets(box: Tensor, field: Tensor, stride: float, normal: list[tuple[float, float]]) -> Tensor:
    """The deltas (N, 4, H, W) that lead from fields of size (N or 1, 2, 1, 1) to boxes of at least 2 pixels."""
    near = (box[:, :2] - places(box, stride)) / field
    far = (box[:, 2:].clamp(min=2) / field).log()
    parts = torch.cat([near, far], 1).unbind(1)
    return torch.stack([(t - mean) / std for t, (std, mean) in zip(parts, normal, strict=True)], 1)


def bounded(deltas: Tensor, xyr: float, whr: float, normal: list[tuple[float, float]]) -> Tensor:
    """Deltas clamped to x, y +- 1 / xyr and w, h +- log(whr), with a gradient that ignores the clamp."""
    (sx, mx), (sy, my), (sw, mw), (sh, mh) = normal
    ends = [(1 / xyr, (mx + my) / 2, math.sqrt(sx * sy))] * 2 + [(math.log(whr), (mw + mh) / 2, math.sqrt(sw * sh))] * 2
    low, high = (deltas.new_tensor([(sign * e - m) / s for e, m, s in ends]).view(1, 4, 1, 1) for sign in (-1, 1))
    limited = torch.minimum(torch.maximum(deltas, low), high)
    if is_exact():
        tell("the gradient ignores the bounds of the deltas")
        return limited
    return deltas + (limited - deltas).detach()


@torch.no_grad()
def _kept(layer: Layer, cells: Cells, classes: Tensor) -> Tensor:
    """The cells (N, H, W) that count: all of the foreground, and the background that sample_mode chooses."""
    opt, mode = layer.opt, layer.opt.sample_mode
    front, free = classes.flatten(1) > 0, ((classes == 0) & (cells.overlap < opt.bg_threshold)).flatten(1)
    if not has_values(cells.scores) or mode not in ("random", "mixture", "bootstrap"):
        return (front | free).view(classes.shape)
    multiple = opt.bg_multiple * (0.5 if mode == "mixture" else 1)
    chosen = torch.zeros_like(free)
    if mode != "bootstrap":
        number = (front.sum(1) * multiple).long().clamp(min=4 * (opt.cls_num - 1))
        most = int(number.max()) if len(number) else 0
        drawn = torch.randint(max(1, free.shape[1]), (len(free), most)).to(free.device)
        drawn = drawn.where(torch.arange(most, device=free.device) < number.unsqueeze(1), free.shape[1])
        chosen |= F.pad(chosen, (0, 1)).scatter(1, drawn, True)[:, :-1]
    if mode != "random":
        scores = cells.scores.flatten(2)[:, 1:].masked_fill(~free.unsqueeze(1), -math.inf)
        rank = scores.argsort(dim=2, descending=True, stable=True).argsort(2)
        each = (classes.flatten(1).unsqueeze(1) == torch.arange(1, opt.cls_num, device=free.device).view(-1, 1)).sum(2)
        chosen |= (rank < (each * multiple).long().clamp(min=4).unsqueeze(2)).any(1)
    return (front | (chosen & free)).view(classes.shape)


def mined_loss(layer: Layer, x: Tensor, truth: Tensor) -> Tensor:
    """The loss of MS-CNN, see Detection."""
    opt, normal = layer.opt, normal_of(layer)
    cells = Cells.of(x[:, : opt.cls_num], x[:, opt.cls_num :], truth)
    classes = classes_of(layer, cells, 1, 0)
    kept = untraced(_kept)(layer, Cells(*(part.detach() for part in cells)), classes)
    field = x.new_tensor([opt.field_w, opt.field_h]).view(1, 2, 1, 1)
    goal = targets(cells.box, field, opt.downsample_rate, normal)
    weight = torch.ones_like(cells.overlap)
    weight = cells.overlap.where(classes > 0, weight) if opt.iou_weighted else weight
    weight = weights(cells, kept, weight, 1 / (1 + opt.bg_multiple)) if opt.pos_neg_weighted else weight
    cells = cells._replace(deltas=bounded(cells.deltas, opt.field_xyr, opt.field_whr, normal))
    return combined(layer, cells, classes, kept, goal, weight)


class Detection(Loss, bottoms=2):
    """MS-CNN's loss of one map: each cell says whether its field, a box around it, is an object, and where it is.

    bottoms: x (N, cls_num + 4, H, W), scores and deltas t; truth (N, 6, H, W): label, x, y, w, h, overlap of the field
    top (1, 1, 1, 2): the loss, and its second term, which gets no gradient

        loss = mean of -weight log softmax(x)[label] + lambda mean of smoothL1(t - goal) over the foreground
        goal = ((x - (column + 1/2) rate) / field_w, (y - ...) / field_h, log(w / field_w), log(h / field_h))

    Background counts if its overlap is below bg_threshold and sample_mode chooses it: "random" draws, "bootstrap" takes
    the highest scores, bg_multiple times the foreground, "mixture" half of each; others take all. t is clamped to
    +-1 / field_xyr, +-log(field_whr) and normalized by bbox_reg_param; its gradient ignores the clamp. iou_weighted:
    weight of the foreground is the overlap. Source: Cai et al., arXiv:1607.07155; zhaoweicai/mscnn.
    """

    effects = Effects.VALUES | Effects.RANDOM | Effects.CHECKS
    more_options = ("loss_param", "bbox_reg_param")

    def setup(self, x: Tensor, truth: Tensor) -> None:
        check_mined(self, x, truth)
        normal_of(self)

    def forward(self, x: Tensor, truth: Tensor) -> Tensor:
        return mined_loss(self, x, truth)


class _DetectionGroupLoss(Loss, abstract=True):
    """Base of DetectionGroupLoss: helper methods."""

    normal: list[tuple[float, float]]

    @torch.no_grad()
    def kept(self, cells: Cells, classes: Tensor) -> Tensor:
        """The cells (N G, H, W) that count."""
        opt, groups = self.opt, len(self.opt.field_h)
        front = (cells.label > 0).view(-1, groups * classes[0].numel())
        free = ((cells.label == 0) & (cells.overlap < opt.bg_threshold)).view(front.shape)
        if not has_values(cells.scores):
            return (front | free).view(classes.shape)
        if opt.batch_size == -1:
            ahead = front.sum(1)
            behind = (ahead * opt.bg_multiple).clamp(min=opt.min_num_neg)
        else:
            most = math.floor(opt.batch_size / (1 + opt.bg_multiple) + 0.5)
            ahead = front.sum(1).clamp(max=most)
            behind = opt.batch_size - ahead
        chosen = _first(front, torch.rand(front.shape).to(cells.scores), ahead)
        behind = torch.minimum(behind, free.sum(1))
        if opt.neg_mining_type != "random":
            hard = behind if opt.neg_mining_type == "bootstrap" else (behind + 1) // 2
            taken = _first(free, self._ranking(cells, classes).view(front.shape), hard)
            chosen, free, behind = chosen | taken, free & ~taken, behind - hard
        return (chosen | _first(free, torch.rand(front.shape).to(cells.scores), behind)).view(classes.shape)

    def _ranking(self, cells: Cells, classes: Tensor) -> Tensor:
        """How hard each cell is (N G, H, W): the loss of its label, or 1 - the probability of the background."""
        log = cells.scores.log_softmax(1)
        if self.opt.neg_ranking_type == "conf_prob":
            return 1 - log[:, 0].exp()
        return -log.gather(1, classes.clamp(0, log.shape[1] - 1).unsqueeze(1)).squeeze(1)


class DetectionGroupLoss(_DetectionGroupLoss, bottoms=3):
    """Cascade R-CNN's loss of a map with G fields a cell, as Detection, with G rows for each image.

    bottoms: scores (N G, cls_num, H, W); deltas t (N G, 4, H, W); truth (N G, 6, H, W) as for Detection
    top (1, 1, 1, 2): the loss, and its second term, which gets no gradient

    The loss and the goals are those of Detection. Of each image batch_size cells count, foreground and background of
    all rows together: one in 1 + bg_multiple is foreground if there is enough; batch_size -1 takes all foreground and
    bg_multiple times as much background, at least min_num_neg. neg_mining_type draws at "random", takes the hardest by
    neg_ranking_type ("bootstrap"), or half of each ("mixture"). t is clamped if field_xyr and field_whr are given.
    A label below 0 does not count. Source: Cai and Vasconcelos, arXiv:1712.00726; zhaoweicai/cascade-rcnn.
    """

    effects = Effects.RANDOM | Effects.CHECKS
    more_options = ("loss_param", "bbox_reg_param")
    constant = (2,)
    exempt = (2,)

    def setup(self, scores: Tensor, deltas: Tensor, truth: Tensor) -> None:
        opt = self.opt
        check_groups(self, scores, deltas, truth)
        self.require(opt.batch_size == -1 or opt.batch_size > 0, f"batch_size is {opt.batch_size}, expected -1 or more")
        for name, known in (
            ("neg_mining_type", ("random", "bootstrap", "mixture")),
            ("neg_ranking_type", ("conf_prob", "conf_loss")),
            ("bbox_loss_type", ("Smooth_L1", "Euclidean_L2")),
        ):
            given = getattr(opt, name)
            self.require(given in known, f'{name} is "{given}", expected {" or ".join(known)}')
        self.normal = normal_of(self)

    def forward(self, scores: Tensor, deltas: Tensor, truth: Tensor) -> Tensor:
        opt = self.opt
        cells = Cells.of(scores, deltas, truth)
        classes = classes_of(self, cells, 2, torch.iinfo(torch.long).min)
        kept = untraced(self.kept)(Cells(*(part.detach() for part in cells)), classes)
        goal = targets(cells.box, fields_of(self, scores), opt.stride, self.normal)
        weight = torch.ones_like(cells.overlap)
        weight = weights(cells, kept, weight, 1 / (1 + opt.bg_multiple), True) if opt.pos_neg_weighted else weight
        if opt.HasField("field_xyr") and opt.HasField("field_whr"):
            cells = cells._replace(deltas=bounded(deltas, opt.field_xyr, opt.field_whr, self.normal))
        return combined(self, cells, classes, kept, goal, weight)


def check_groups(layer: Layer, scores: Tensor, deltas: Tensor, truth: Tensor) -> None:
    """Check the options and bottoms of Cascade R-CNN's layers with several fields a cell."""
    opt, groups = layer.opt, len(layer.opt.field_h)
    fact = f"has {groups} values of field_h and {len(opt.field_w)} of field_w, expected as many, and at least one"
    layer.require(groups > 0 and groups == len(opt.field_w) and min(*opt.field_h, *opt.field_w) > 0, fact)
    layer.require(opt.cls_num > 1, f"cls_num is {opt.cls_num}, expected the classes, background included")
    layer.require(not opt.objectness or opt.cls_num == 2, "objectness needs cls_num: 2")
    layer.require(opt.stride > 0, "stride must be given and positive")
    layer.require(opt.field_whr > 1 and opt.field_xyr > 0, "field_whr must be above 1, and field_xyr above 0")
    for i, x, channels in ((0, scores, opt.cls_num), (1, deltas, 4), (2, truth, 6)):
        fits = (
            x.dim() == 4 and x.shape[1] == channels and (x.shape[0], *x.shape[2:]) == (len(scores), *scores.shape[2:])
        )
        fact = f"{layer.bottom_name(i)} has shape {shape_text(x.shape)}, expected (N x {groups}, {channels}, H, W)"
        layer.require(fits and x.shape[0] % groups == 0 and x.shape[2:].numel() > 0, f"{fact}, as {groups} fields need")


def fields_of(layer: Layer, x: Tensor) -> Tensor:
    """Width and height (N G, 2, 1, 1) of the field of each row of x."""
    field = x.new_tensor([list(layer.opt.field_w), list(layer.opt.field_h)]).t()
    return field.repeat(x.shape[0] // len(field), 1).view(-1, 2, 1, 1)


def _first(there: Tensor, order: Tensor, count: Tensor) -> Tensor:
    """A mask (N, S) of those `count` (N) cells of `there` that come first if sorted by `order`, the highest first."""
    rank = order.masked_fill(~there, -math.inf).argsort(dim=1, descending=True, stable=True).argsort(1)
    return there & (rank < count.unsqueeze(1))
