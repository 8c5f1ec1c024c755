"""MultiBoxLoss: the training loss of SSD."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe.layers.base import Effects, has_values, shape_text
from caffe.layers.detection.matching import UNMATCHED, Matches, Truth, match, read_truth
from caffe.layers.detection.predictions import check_predictions
from caffe.layers.detection.smooth_l1 import smooth_l1
from caffe.layers.loss import FLT_MIN, Normalized, floored
from caffe.layers.support.boxes import areas, best, decode, encode, nms, overlaps
from caffe.layers.support.values import untraced
from caffe.proto import caffe_pb2

__all__ = ["MultiBoxLoss"]

_Param = caffe_pb2.MultiBoxLossParameter
NONE, MAX_NEGATIVE, HARD_EXAMPLE = (_Param.MiningType.Value(name) for name in ("NONE", "MAX_NEGATIVE", "HARD_EXAMPLE"))
SMOOTH_L1, SOFTMAX = _Param.SMOOTH_L1, _Param.SOFTMAX
_SMALLEST = 1e-5
"""Boxes with a smaller area are excluded from the suppression before samples are chosen."""


@dataclass(frozen=True)
class _Batch:
    """The inputs of the loss for a batch."""

    loc: Tensor  # (N, P, L, 4)
    conf: Tensor  # (N, P, C)
    boxes: Tensor  # (P, 4)
    variances: Tensor  # (P, 4)
    truth: Truth
    refined: Tensor | None = None  # (N, P, 4), the boxes after RefineDet's first stage
    objectness: Tensor | None = None  # (N, P), the score of an object in the first stage


class _Set(Normalized, abstract=True):
    """Base of MultiBoxLoss: its options."""

    loc_classes: int
    background: int
    mining: int

    def setup(self, *bottoms: Any, **_: Any) -> None:
        super().setup()
        opt = self.opt
        self.require(opt.num_classes > 0, "needs num_classes, background included")
        self.loc_classes = 1 if opt.share_location else opt.num_classes
        self.background = opt.background_label_id
        self.mining = self._mining()
        fact = f"background_label_id {self.background} must be below num_classes {opt.num_classes}"
        self.require(self.background < opt.num_classes or opt.conf_loss_type != SOFTMAX, fact)
        if opt.map_object_to_agnostic:
            wanted = 2 if self.background < opt.num_classes else 1
            self.require(opt.num_classes == wanted, f"map_object_to_agnostic is for num_classes: {wanted}")
        fact = "ignore_difficult_gt comes from NVCaffe and is not implemented; remove it"
        self.require(not opt.HasField("ignore_difficult_gt"), fact)
        self._check_shapes(*bottoms)

    def _mining(self) -> int:
        """The mining_type, or its equivalent in the older option do_neg_mining."""
        opt, mining = self.opt, self.opt.mining_type
        if opt.HasField("do_neg_mining"):
            if not opt.HasField("mining_type"):
                mining = MAX_NEGATIVE if opt.do_neg_mining else NONE
            fact = "do_neg_mining and mining_type contradict each other; keep mining_type"
            self.require(opt.do_neg_mining == (mining != NONE), fact)
        if mining != NONE:
            self.require(opt.share_location, "mines with share_location: false; write mining_type: NONE")
        if mining == MAX_NEGATIVE:
            self.require(opt.neg_pos_ratio > 0, f"neg_pos_ratio is {opt.neg_pos_ratio:g}, expected a number above 0")
        if mining == HARD_EXAMPLE:
            self.require(opt.sample_size > 0, f"sample_size is {opt.sample_size}, expected 1 or more")
        if opt.HasField("nms_param"):
            fact = "nms_param has no top_k, which then is 0 and leaves no sample; give the number of boxes"
            self.require(opt.nms_param.top_k != 0, fact)
        return int(mining)

    def _check_shapes(self, loc: Tensor, conf: Tensor, priors: Tensor, truth: Tensor, *first: Tensor) -> None:
        check_predictions(self, (loc, conf, priors), (0, 1, 2), self.loc_classes, self.opt.num_classes)
        for index, (bottom, each) in enumerate(zip(first, (2, 4 * self.loc_classes), strict=False), 4):
            wanted = loc.shape[0] * (priors.numel() // 8) * each
            fact = f"{self.bottom_name(index)} has shape {shape_text(bottom.shape)}, expected {each} numbers per prior"
            self.require(bottom.numel() == wanted, fact)
        if len(first) == 2:
            self.require(self.loc_classes == 1, "takes a first stage's loc only with share_location: true")
        fact = f"{self.bottom_name(3)} has shape {shape_text(truth.shape)}, expected (1, 1, boxes, 8)"
        self.require(truth.dim() == 4 and truth.shape[-1] == 8, fact)


class _Costs(_Set, abstract=True):
    """Base of MultiBoxLoss: matches and their losses."""

    def _truth(self, rows: Tensor, images: int) -> Truth:
        opt, real = self.opt, 0 <= self.background < self.opt.num_classes
        truth = read_truth(self, rows, opt.num_classes, self.background, images, opt.map_object_to_agnostic)
        if not opt.use_difficult_gt:
            truth = truth.only(~truth.difficult)
        if opt.map_object_to_agnostic:
            truth = replace(truth, label=torch.full_like(truth.label, self.background + 1 if real else 0))
        return truth

    def _matched(self, batch: _Batch) -> Matches:
        """The matches. A group is an image and a class of loc: image L + class."""
        opt, truth, own = self.opt, batch.truth, not self.opt.share_location
        group = truth.image * self.loc_classes + (truth.label if own else 0)
        cells = batch.boxes.unsqueeze(0) if batch.refined is None else batch.refined[truth.image]
        if not opt.use_prior_for_matching:
            mine = batch.loc.detach()[truth.image, :, truth.label if own else truth.label * 0]
            cells = decode(mine, batch.boxes.unsqueeze(0), self._variances(batch.variances), opt.code_type)
        shares = overlaps(truth.box.unsqueeze(1), cells).squeeze(1)
        ignored = torch.zeros_like(shares, dtype=torch.bool)
        if opt.ignore_cross_boundary_bbox:
            ignored |= ((cells < 0) | (cells > 1)).any(-1)
        threshold = opt.overlap_threshold if opt.match_type == _Param.PER_PREDICTION else None
        if not own or not opt.use_prior_for_matching:
            return match(shares, group, ignored, threshold)
        return match(shares, truth.image, ignored, threshold).regrouped(group)

    def _variances(self, variances: Tensor) -> Tensor | None:
        """The variances by which offsets are multiplied; None if the loss is divided by them instead."""
        return None if self.opt.encode_variance_in_target else variances

    def _loc_costs(self, loc: Tensor, batch: _Batch, found: Matches) -> Tensor:
        """L_loc of each matched prior."""
        opt, truth = self.opt, batch.truth
        group, prior, place = found.pairs()
        predicted = loc[group // self.loc_classes, prior, group % self.loc_classes]
        boxes, variances = batch.boxes[prior], batch.variances[prior]
        if batch.refined is not None:
            boxes = batch.refined[group // self.loc_classes, prior]
        error = predicted - encode(truth.box[place], boxes, self._variances(variances), opt.code_type)
        if opt.encode_variance_in_target:
            error = error / variances
        if opt.bp_inside:
            if not opt.use_prior_for_matching:
                boxes = decode(predicted.detach(), boxes, self._variances(variances), opt.code_type)
            error = error.masked_fill((boxes < 0) | (boxes > 1), 0)
        if opt.loc_loss_type == SMOOTH_L1:
            return smooth_l1(error).sum(-1)
        return error.square().sum(-1) / 2

    def _conf_loss(self, batch: _Batch, found: Matches, negatives: tuple[Tensor, Tensor] | None) -> Tensor:
        """The sum of L_conf over the chosen priors, which are all if there are no `negatives`."""
        group, prior, place = found.pairs()
        image, label = group // self.loc_classes, batch.truth.label[place]
        if negatives is not None:
            chosen = torch.cat([image, negatives[0]]), torch.cat([prior, negatives[1]])
            label = torch.cat([label, torch.full_like(negatives[0], self.background)])
            return self._conf_costs(batch.conf[chosen], label).sum()
        if self.opt.conf_loss_type == SOFTMAX:
            target = torch.full(batch.conf.shape[:2], self.background, device=label.device)
            flat, at = target.view(-1), image * len(batch.boxes) + prior  # the last of several classes wins
            flat.scatter_reduce_(0, at, label, "amax", include_self=False)
            return self._conf_costs(batch.conf, target).sum()
        wanted = torch.zeros_like(batch.conf)
        wanted[image, prior, label] = 1
        return F.binary_cross_entropy_with_logits(batch.conf, wanted, reduction="sum")

    def _conf_costs(self, scores: Tensor, label: Tensor) -> Tensor:
        """L_conf for scores (..., C) and labels (...)."""
        if self.opt.conf_loss_type == SOFTMAX:
            log = F.log_softmax(scores, -1).gather(-1, label.unsqueeze(-1))
            return -floored(log.squeeze(-1), math.log(FLT_MIN))
        wanted = (torch.arange(scores.shape[-1], device=label.device) == label.unsqueeze(-1)).to(scores.dtype)
        return F.binary_cross_entropy_with_logits(scores, wanted, reduction="none").sum(-1)


class _Mining(_Costs, abstract=True):
    """Base of MultiBoxLoss: the choice of priors that enter the loss."""

    @torch.no_grad()
    def _mined(self, batch: _Batch, found: Matches) -> tuple[Tensor, Tensor]:
        """Images and priors of the chosen negatives. HARD_EXAMPLE also removes the matches that are not chosen."""
        opt, index = self.opt, found.index
        if not len(index):
            return found.group, found.group
        matched = index >= 0
        label = torch.where(matched, batch.truth.label[index.clamp(min=0)], self.background)
        cost = self._conf_costs(batch.conf[found.group], label)
        likely = torch.ones_like(matched)
        if batch.objectness is not None:
            likely = batch.objectness[found.group] >= opt.objectness_score
        eligible = (index == UNMATCHED) & (found.overlap < opt.neg_overlap) & likely
        counts = torch.minimum((matched.sum(1) * opt.neg_pos_ratio).long(), eligible.sum(1))
        if self.mining == HARD_EXAMPLE:
            cost[matched] += self._loc_costs(batch.loc, replace(batch, refined=None), found)
            eligible = likely
            counts = torch.full_like(counts, opt.sample_size)
        chosen = torch.zeros_like(matched)
        for i, count in enumerate(counts.tolist()):
            chosen[i, self._hardest(batch, int(found.group[i]), cost[i], eligible[i], count)] = True
        if self.mining == HARD_EXAMPLE:
            found.index = index.masked_fill(matched & ~chosen, UNMATCHED)
        row, prior = (chosen & (index == UNMATCHED)).nonzero().unbind(1)
        return found.group[row], prior

    def _hardest(self, batch: _Batch, image: int, cost: Tensor, eligible: Tensor, count: int) -> Tensor:
        """The `count` eligible priors with the largest loss, after non-maximum suppression by nms_param."""
        places, how = eligible.nonzero().flatten(), self.opt.nms_param
        if not self.opt.HasField("nms_param") or how.nms_threshold <= 0:
            return places[best(cost[places], min(count, len(places)))]
        boxes = batch.boxes
        if not self.opt.use_prior_for_nms:
            boxes = decode(batch.loc[image, :, 0], boxes, self._variances(batch.variances), self.opt.code_type)
        places = places[best(cost[places], how.top_k if how.top_k >= 0 else None)]
        places = places[areas(boxes[places]) >= _SMALLEST]
        return places[nms(boxes[places], cost[places], how.nms_threshold)[:count]]


class MultiBoxLoss(_Mining, bottoms=(4, 6), options="multibox_loss_param"):
    """SSD's loss: a localization loss for the offsets of matched priors and a confidence loss for the scores.

    bottoms: loc (N, P L 4), L = 1 or num_classes; conf (N, P C); priors (1, 2, P 4), boxes and variances;
    truth (1, 1, T, 8), rows [image, label, instance, xmin, ymin, xmax, ymax, difficult], image -1 for padding;
    RefineDet: conf (N, P 2), loc (N, P 4) of stage 1: loc moves the priors, negatives have conf[1] >= objectness_score
    top: loss () = (loc_weight sum over matches of L_loc + sum over chosen priors of L_conf) / normalizer

    Each truth box is matched to its best prior; PER_PREDICTION also matches priors that overlap by overlap_threshold.
    Chosen priors: MAX_NEGATIVE: matches, and neg_pos_ratio times as many of the hardest below neg_overlap;
    HARD_EXAMPLE: the sample_size hardest, and only their matches count; NONE: all.  The target of unmatched priors is
    background_label_id.  normalizer: matches (VALID), N P (FULL), N (BATCH_SIZE) or 1 (NONE), at least 1.
    Source: multibox_loss_layer.cpp of SSD (arXiv:1512.02325) and RefineDet (arXiv:1711.06897).
    """

    constant = (3,)
    exempt = (2, 3, 4, 5)
    effects = Effects.VALUES

    def forward(self, loc: Tensor, conf: Tensor, priors: Tensor, truth: Tensor, *first: Tensor) -> Tensor:
        self._check_shapes(loc, conf, priors, truth, *first)
        return untraced(self._loss)(loc, conf, priors, truth, *(each.detach() for each in first))

    def _loss(self, loc: Tensor, conf: Tensor, priors: Tensor, rows: Tensor, *first: Tensor) -> Tensor:
        if not has_values(loc):
            return loc.sum() * 0 + conf.sum() * 0
        opt, images = self.opt, loc.shape[0]
        boxes, variances = priors.detach().reshape(2, -1, 4)
        batch = _Batch(
            loc.reshape(images, -1, self.loc_classes, 4),
            conf.reshape(images, -1, opt.num_classes),
            boxes,
            variances,
            self._truth(rows, images),
            *self._first_stage(boxes, variances, images, *first),
        )
        found = self._matched(batch)
        negatives = None if self.mining == NONE else self._mined(batch, found)
        wanted = [*self.spec.propagate_down, True, True][:2]
        total = loc.new_zeros(())
        if wanted[0]:
            total = total + opt.loc_weight * self._loc_costs(batch.loc, batch, found).sum()
        if wanted[1]:
            total = total + self._conf_loss(batch, found, negatives)
        return self.average(total, found.index >= 0, images, len(batch.boxes))

    def _first_stage(
        self, boxes: Tensor, variances: Tensor, images: int, conf: Tensor | None = None, loc: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """The boxes that RefineDet's first stage moved, and its scores of an object."""
        objectness = None if conf is None else conf.reshape(images, -1, 2)[..., 1]
        if loc is None:
            return None, objectness
        moved = decode(loc.reshape(images, -1, 4), boxes, self._variances(variances), self.opt.code_type)
        return moved, objectness
