"""Training targets and output of Cascade R-CNN and MS-CNN."""

from __future__ import annotations

import torch
from torch import Tensor

from caffe import log
from caffe.layers.base import Effects, Layer, has_values, shape_text
from caffe.layers.regions.cascade import denormalized, normal_of
from caffe.layers.regions.rois import example_regions
from caffe.layers.support.boxes import batched_nms, best, decode_deltas, encode_deltas, overlaps
from caffe.layers.support.values import untraced

__all__ = ["BboxAccuracy", "FrcnnOutput", "ProposalTarget", "ScaleRoute"]


def _rows(layer: Layer, index: int, x: Tensor, least: int, count: int | None = None, exact: bool = False) -> None:
    """Check that bottom `index` has rows of at least (or `exact`ly) `least` elements, and `count` rows if given."""
    columns = x.shape[1:].numel() if x.dim() > 1 else 0
    fits = (columns == least if exact else columns >= least) and count in (None, x.shape[0] if x.dim() else None)
    rows = "R" if count is None else str(count)
    fact = f"{layer.bottom_name(index)} has shape {shape_text(x.shape)}, expected ({rows}, {least})"
    layer.require(fits, fact if exact else f"{fact} or more columns")


class _ProposalTarget(Layer, abstract=True):
    """Base of ProposalTarget: helper methods."""

    normal: list[tuple[float, float]]
    columns: int

    @torch.no_grad()
    def _sample(self, rois: Tensor, truth: Tensor) -> tuple[Tensor, ...]:
        sizes = (5, 1, self.columns, self.columns, self.columns, 6, 1)[: self.top_count]
        if not has_values(rois):
            count = max(1, len(rois)) if self.opt.batch_size == -1 else self.opt.batch_size
            return tuple(rois.new_empty(count, n, 1, 1) for n in sizes)
        rows = truth.flatten(1)
        rows = rows[rows[:, 0] != -1]
        boxes = rois.flatten(1)[:, :5]
        boxes = torch.cat([boxes, rows[:, :5]]) if self.opt.append_gtbox else boxes
        self._check_images(boxes, rows)
        share = overlaps(boxes[:, 1:], rows[:, 1:5], 1).where(boxes[:, :1] == rows[:, 0], -1)
        share = torch.cat([share, torch.full_like(boxes[:, :1], -1)], 1)
        most, which = share.max(1)
        most = most.clamp(min=0)
        front, back = self._chosen(most, which, rows)
        if not len(front) and not len(back):
            boxes, most, which = self._spare(boxes, rows)
            back = torch.tensor([len(boxes) - 1], device=boxes.device)
        kept = torch.cat([front, back])
        is_front = torch.arange(len(kept), device=kept.device) < len(front)
        made = self._tops(boxes[kept], most[kept], which[kept], rows, is_front)
        return tuple(y.to(rois.dtype).reshape(len(kept), -1, 1, 1) for y in made[: self.top_count])

    def _check_images(self, boxes: Tensor, rows: Tensor) -> None:
        most = self.opt.num_img_per_batch
        for index, x in enumerate((boxes, rows)):
            wrong = (x[:, 0] < 0) | (x[:, 0] >= most)
            if bool(wrong.any()):
                number = float(x[wrong][0, 0])
                self.error(f"{self.bottom_name(index)} has the image index {number:g}, expected 0 to {most - 1}")

    def _chosen(self, most: Tensor, which: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The indices of the chosen foreground and background regions."""
        opt = self.opt
        front = (most >= opt.fg_thr) & (which < len(rows))
        ignored = torch.cat([rows[:, 6] != 0, rows.new_zeros(1, dtype=torch.bool)])[which]
        bad = front & ~(torch.cat([rows[:, 5], rows.new_ones(1)])[which] > 0)
        self.require(not bool(bad.any()), f"{self.bottom_name(1)} holds a label that is not above 0; correct the data")
        back = ~front & (most >= opt.bg_thr_lw) & (most < opt.bg_thr_hg)
        others = (~front & ~back).nonzero().flatten()
        front, back = ((front & ~ignored).nonzero().flatten(), back.nonzero().flatten())
        if opt.batch_size == -1:
            return front, back
        front = _drawn(front, int(opt.fg_fraction * opt.batch_size + 0.5))
        room = opt.batch_size - len(front)
        if len(back) > room:
            return front, _drawn(back, room)
        return front, torch.cat([back, others[: room - len(back)]]) if opt.pickup_discard else back

    def _spare(self, boxes: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The boxes plus one random box in the image that is not foreground and whose overlaps count as 0."""
        opt = self.opt
        wide = opt.img_width > 32 and opt.img_height > 32
        self.require(wide, "no region is left, and img_width and img_height above 32, to draw one, are not given")
        while True:
            image = int(torch.randint(opt.num_img_per_batch, ()))
            left, top = (int(torch.randint(n - 32, ())) for n in (opt.img_width, opt.img_height))
            width = max(32, int(torch.randint(opt.img_width - left, ())))
            height = max(32, int(torch.randint(opt.img_height - top, ())))
            box = boxes.new_tensor([[image, left, top, left + width - 1, top + height - 1]])
            mine = rows[rows[:, 0] == image]
            if not bool((overlaps(box[:, 1:], mine[:, 1:5], 1) >= opt.fg_thr).any()):
                boxes = torch.cat([boxes, box])
                none = torch.full((len(boxes),), len(rows), device=boxes.device)
                return boxes, torch.zeros_like(boxes[:, 0]), none

    def _tops(self, boxes: Tensor, most: Tensor, which: Tensor, rows: Tensor, front: Tensor) -> list[Tensor]:
        opt = self.opt
        real = torch.cat([rows[:, :6], rows.new_zeros(1, 6)])[which]
        label = real[:, 5].where(front, 0)
        delta = encode_deltas(real[:, 1:5], boxes[:, 1:])
        parts = [(d - mean) / std for d, (std, mean) in zip(delta.unbind(1), self.normal, strict=True)]
        column = label if self.spec.bbox_reg_param.cls_aware else label.clamp(max=1)
        place = column.long().unsqueeze(1) * 4 + torch.arange(4, device=boxes.device)
        self.require(not len(place) or int(place.max()) < self.columns, f"a label is above cls_num {opt.cls_num} - 1")
        targets = boxes.new_zeros(len(boxes), self.columns)
        counted = ((most >= opt.bbox_thr_lw) & (most <= opt.bbox_thr_hg) & front).to(boxes).unsqueeze(1)
        inside = targets.scatter(1, place, counted.expand(-1, 4))
        targets = targets.scatter(1, place, torch.stack(parts, 1).where(front.unsqueeze(1), 0))
        matched = torch.cat([label.unsqueeze(1), real[:, 1:5], most.unsqueeze(1)], 1).where(front.unsqueeze(1), 0)
        made = [boxes, label, targets, inside, inside.clone(), matched]
        if self.top_count > 6:
            made.append(self._weights(most, front))
        return made

    def _weights(self, most: Tensor, front: Tensor) -> Tensor:
        share = self.opt.fg_fraction
        weight = most.where(front, 1) if self.opt.iou_weighted else torch.ones_like(most)
        sums = weight.where(front, 0).sum(), weight.where(~front, 0).sum()
        if not bool(sums[0] != 0):
            return weight
        return weight * (share / sums[0] * front + (1 - share) / sums[1].clamp(min=1e-30) * ~front) * len(weight)


class ProposalTarget(_ProposalTarget, bottoms=2, tops=(6, 7)):
    """Samples foreground and background regions for training, with their targets. The layer has no gradient.

    bottoms: rois (R, 5), rows [image, x1, y1, x2, y2]; truth (G, 7), rows [image, x1, y1, x2, y2, label, ignored],
    image -1 in rows to ignore
    tops, K rows each: rois (K, 5, 1, 1); labels (K, 1, 1, 1); targets, inside weights, outside weights
    (K, 4 cls_num, 1, 1), or (K, 8, 1, 1) with cls_aware: false; matched truth (K, 6, 1, 1), rows [label, x1, y1, x2,
    y2, overlap]; optionally sample weights (K, 1, 1, 1)

    Foreground overlaps its best truth box by fg_thr or more, background by bg_thr_lw to bg_thr_hg. round(fg_fraction
    batch_size) foreground regions are drawn, and background for the rest; -1 takes all. append_gtbox adds the
    truth to the regions. pickup_discard fills up with the first unused regions. Weights are 1 from bbox_thr_lw to
    bbox_thr_hg. If there are no regions, a random one is drawn. Source: Cai and Vasconcelos, arXiv:1712.00726.
    """

    constant = (0, 1)
    exempt = (0, 1)
    effects = Effects.VALUES | Effects.RANDOM
    more_options = ("bbox_reg_param",)

    def setup(self, rois: Tensor, truth: Tensor) -> None:
        opt = self.opt
        _rows(self, 0, rois, 5, exact=True)
        _rows(self, 1, truth, 7)
        self.require(opt.cls_num > 1, f"cls_num is {opt.cls_num}, expected the classes, background included")
        fact = f"batch_size is {opt.batch_size}, expected a number above 0, or -1 for all regions"
        self.require(opt.batch_size == -1 or 0 < opt.batch_size < 1 << 30, fact)
        fact = f"fg_thr is {opt.fg_thr:g} and bg_thr_hg {opt.bg_thr_hg:g}; expected bg_thr_hg of at most fg_thr"
        self.require(opt.fg_thr >= opt.bg_thr_hg, fact)
        self.normal = normal_of(self)
        self.columns = 4 * opt.cls_num if self.spec.bbox_reg_param.cls_aware else 8

    def forward(self, rois: Tensor, truth: Tensor) -> tuple[Tensor, ...]:
        return untraced(self._sample)(rois, truth)


def _drawn(places: Tensor, count: int) -> Tensor:
    """Draw `count` of the indices at random, or all if there are no more."""
    return places[torch.randperm(len(places))[:count].to(places.device)] if len(places) > count else places


class BboxAccuracy(Layer, bottoms=3, tops=(1, 2)):
    """The mean overlap of foreground regions with the truth, after and before the deltas are applied.

    bottoms: deltas (R, 4 C), or (R, 8) with cls_aware: false; rois (R, 5 or more); matched truth (R, 6), rows [label,
    x1, y1, x2, y2, overlap]   tops: after (1, 1, 1, 1); optionally before (1, 1, 1, 1); -1 if there is no foreground

    Boxes that overlap the truth by more than 0.975 are ignored. Source: Cai and Vasconcelos, arXiv:1712.00726.
    """

    constant = (0, 1, 2)
    exempt = (0, 1, 2)
    more_options = ("bbox_reg_param",)
    traceable = False

    def setup(self, deltas: Tensor, rois: Tensor, truth: Tensor) -> None:
        aware, count = self.spec.bbox_reg_param.cls_aware, rois.shape[0] if rois.dim() else 0
        _rows(self, 0, deltas, 8, count, exact=not aware)
        self.require(deltas.shape[1:].numel() % 4 == 0, f"{self.bottom_name(0)} needs a multiple of 4 columns")
        _rows(self, 1, rois, 5, count)
        _rows(self, 2, truth, 6, count)
        self.normal = normal_of(self)

    def forward(self, deltas: Tensor, rois: Tensor, truth: Tensor) -> tuple[Tensor, ...]:
        deltas, rois, truth = (x.detach().flatten(1) for x in (deltas, rois, truth))
        label = truth[:, 0].long()
        counts = (label > 0) & ~(truth[:, -1] > 0.975)
        group = label.clamp(min=0) if self.spec.bbox_reg_param.cls_aware else (label > 0).long()
        group = group.clamp(max=deltas.shape[1] // 4 - 1).view(-1, 1, 1).expand(-1, 1, 4)
        delta = denormalized(deltas.unflatten(1, (-1, 4)).gather(1, group).squeeze(1), self.normal)
        more = rois.new_tensor([0, 0, 1, 1])
        real, before = truth[:, 1:5] + more, rois[:, 1:5] + more
        after = decode_deltas(delta, rois[:, 1:5])
        tops = []
        for box in (after, before)[: self.top_count]:
            share = overlaps(box.unsqueeze(1), real.unsqueeze(1)).flatten()
            mean = share.where(counts, 0).sum() / counts.sum().clamp(min=1)
            tops.append(mean.where(counts.any(), -1).view(1, 1, 1, 1))
        return tuple(tops)


class _FrcnnOutput(Layer, abstract=True):
    """Base of FrcnnOutput: helper methods."""

    normal: list[tuple[float, float]]

    @torch.no_grad()
    def _detect(self, *bottoms: Tensor) -> Tensor:
        score, deltas, rois, size = (x.flatten(1) for x in bottoms)
        if not has_values(score):
            return score.new_empty(1, 7, 1, 1)
        fact = f"{self.bottom_name(2)} has regions of another image than 0; expected a batch of one"
        self.require(not bool((rois[:, 0] != 0).any()), fact)
        place, label = (score[:, 1:] >= self.opt.conf_thr).nonzero().unbind(1)
        label = label + 1
        group = label if self.spec.bbox_reg_param.cls_aware else torch.ones_like(label)
        delta = denormalized(deltas.unflatten(1, (-1, 4))[place, group], self.normal)
        box = decode_deltas(delta, rois[place, 1:5], inclusive=True)
        box = torch.cat([box[:, :2].clamp(min=0), box[:, 2:].minimum(size[0].flip(0))], 1)
        value = score[place, label]
        kept = batched_nms(box, value, label, self.opt.iou_thr, offset=1)
        if 0 < self.opt.max_det_num < len(kept):
            kept = kept[best(value[kept], self.opt.max_det_num).sort().values]
        rows = torch.cat([torch.zeros_like(box[kept, :1]), box[kept], label[kept, None].to(box), value[kept, None]], 1)
        none = torch.full_like(rows[:1], -1) if len(rows) else score.new_full((1, 7), -1)
        none[:, 0] = 0
        return torch.cat([none, rows])[:, :, None, None]


class FrcnnOutput(_FrcnnOutput, bottoms=4):
    """The detections of Cascade R-CNN in an image, as a list.

    bottoms: probabilities (R, C), class 0 the background; deltas (R, 4 C), or (R, 8) with cls_aware: false; rois (R, 5)
    or with a score, rows [0, x1, y1, x2, y2]; the image's size (1, 2), height and width
    top (1 + K, 7, 1, 1): a row [0, -1, ...], then rows [0, x1, y1, x2, y2, label, score], sorted by label and score

    For each class, boxes with a probability of at least conf_thr are decoded as by DecodeBBox, clipped to the image and
    suppressed by iou_thr. Of all classes the best max_det_num (0: all) are kept. No files are
    written. Source: Cai and Vasconcelos, arXiv:1712.00726, frcnn_output_layer.cpp.
    """

    constant = (0, 1, 2, 3)
    exempt = (0, 1, 2, 3)
    effects = Effects.VALUES
    more_options = ("bbox_reg_param",)

    def setup(self, score: Tensor, deltas: Tensor, rois: Tensor, size: Tensor) -> None:
        aware, count = self.spec.bbox_reg_param.cls_aware, rois.shape[0] if rois.dim() else 0
        _rows(self, 0, score, 2, count)
        _rows(self, 1, deltas, 4 * score.shape[1:].numel() if aware else 8, count, exact=True)
        _rows(self, 2, rois, 5, count)
        _rows(self, 3, size, 2, 1, exact=True)
        self.require(self.opt.nms_type == "IOU", f'nms_type is "{self.opt.nms_type}", expected "IOU"')
        self.normal = normal_of(self)
        if self.opt.save_output_param.output_directory:
            fact = "save_output_param has no effect: no files are written; see the rows of the top"
            log.warning("targets.py", f'layer "{self.name}" ({self.type}): {fact}')

    def example(self, index: int, x: Tensor) -> Tensor | None:
        """Regions of one image, and the image's size."""
        if index == 2:
            return torch.cat([example_regions(x.flatten(1)[:, :5], 1), torch.ones_like(x.flatten(1)[:, 5:])], 1).view(
                x.shape
            )
        return torch.full_like(x, 60) if index == 3 else None

    def forward(self, score: Tensor, deltas: Tensor, rois: Tensor, size: Tensor) -> Tensor:
        return untraced(self._detect)(score, deltas, rois, size)


class _ScaleRoute(Layer, abstract=True):
    """Base of ScaleRoute: helper methods."""

    low: float
    high: float
    middle: float

    @torch.no_grad()
    def _route(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        if not has_values(bottoms[0]):
            return tuple(torch.empty_like(x) for x in bottoms)
        box = bottoms[0].flatten(1)[:, 1:]
        scale = (box[:, 2:] - box[:, :2] + 1).prod(1).sqrt()
        kept = ((scale >= self.low) & (scale < self.high)).nonzero().flatten()
        if not len(kept):
            self.require(len(scale) > 0, f"{self.bottom_name(0)} has no regions")
            kept = (scale / self.middle).log2().abs().argmin().view(1)
        return tuple(x.index_select(0, kept) for x in bottoms)


class ScaleRoute(_ScaleRoute, bottoms=(1, None), tops=(1, None)):
    """Selects the regions in a range of scales, and the corresponding rows of other blobs. No gradient.

    bottoms: rois (R, 5), rows [image, x1, y1, x2, y2]; others (R, ...)   tops: the selected rows of each bottom

        low_scale <= sqrt((x2 - x1 + 1) (y2 - y1 + 1)) < high_scale

    If no region is in the range, the one nearest to the middle scale (in logarithms) is selected.
    Source: Cai and Vasconcelos, arXiv:1712.00726, scale_route_layer.cpp.
    """

    effects = Effects.VALUES

    def setup(self, *bottoms: Tensor) -> None:
        self.exempt = tuple(range(len(bottoms)))
        fact = f"has {len(bottoms)} bottoms and {self.top_count} tops, expected as many"
        self.require(len(bottoms) == self.top_count, fact)
        _rows(self, 0, bottoms[0], 5, exact=True)
        for i, x in enumerate(bottoms[1:], 1):
            fact = f"{self.bottom_name(i)} has shape {shape_text(x.shape)}, expected {bottoms[0].shape[0]} rows"
            self.require(x.dim() > 0 and x.shape[0] == bottoms[0].shape[0], fact)
        opt = self.opt
        self.low = opt.low_scale if opt.HasField("low_scale") else 0.0
        self.high = opt.high_scale if opt.HasField("high_scale") else float("inf")
        self.require(0 <= self.low <= self.high, f"low_scale {self.low:g} must be 0 to high_scale {self.high:g}")
        self.middle = {
            (True, True): (self.low * self.high) ** 0.5,
            (True, False): self.low,
            (False, True): self.high,
        }.get((opt.HasField("low_scale"), opt.HasField("high_scale")), 256.0)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return untraced(self._route)(*bottoms)
