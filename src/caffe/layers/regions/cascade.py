"""Box decoding between the stages of Cascade R-CNN, and region proposals of Cascade R-CNN and MS-CNN."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from caffe.layers.base import Effects, Layer, has_values, shape_text
from caffe.layers.regions.rois import example_regions
from caffe.layers.support.boxes import best, decode_deltas, nms
from caffe.proto import caffe_pb2

__all__ = ["BoxGroupOutput", "BoxOutput", "DecodeBBox", "denormalized", "normal_of"]


class DecodeBBox(Layer, bottoms=(2, 3)):
    """Applies the predicted deltas to regions, which gives the regions of the next stage of a cascade.

    bottoms: deltas (R, 8), of which columns 4 to 7, d, are used; rois (R, 5), rows [image, x1, y1, x2, y2]; in TRAIN
    optionally the matched truth (R, 6), whose last column is the overlap   top (R', 5)

        t = d bbox_std + bbox_mean (bbox_reg_param);  size = roi2 - roi1 + 1;  size' = size e^t
        centre' = t size + (roi1 + roi2) / 2;  corners centre' -+ (size' - 1) / 2

    TRAIN drops boxes with x2 < x1 or y2 < y1, and boxes whose overlap is gt_iou_thr or more. There is no gradient.
    Source: Cai and Vasconcelos, arXiv:1712.00726.
    """

    effects = Effects.VALUES  # in TRAIN, for the number of regions
    exempt = (0, 1, 2)
    more_options = ("bbox_reg_param",)

    def setup(self, deltas: Tensor, rois: Tensor, truth: Tensor | None = None) -> None:
        train = self.phase == caffe_pb2.TRAIN
        self.require(train or truth is None, "takes the matched ground truth in TRAIN only; remove the third bottom")
        count = deltas.shape[0] if deltas.dim() else 0
        for i, x, columns in ((0, deltas, 8), (1, rois, 5)):
            fact = f"{self.bottom_name(i)} has shape {shape_text(x.shape)}, expected ({count}, {columns})"
            self.require(x.dim() > 1 and x.shape[:2] == (count, columns) and x.shape[2:].numel() == 1, fact)
        if truth is not None:
            fact = f"{self.bottom_name(2)} has shape {shape_text(truth.shape)}, expected ({count}, 6)"
            self.require(truth.dim() > 1 and truth.shape[0] == count and truth.numel() > 0, fact)
        self.normal = normal_of(self)
        self.effects, self.traceable = (Effects.VALUES, False) if train else (Effects.NONE, True)

    def example(self, index: int, x: Tensor) -> Tensor | None:
        """Regions, and ground truth that does not overlap them."""
        if index == 1:
            return example_regions(x, 1)
        return torch.zeros_like(x) if index == 2 else None

    def forward(self, deltas: Tensor, rois: Tensor, truth: Tensor | None = None) -> Tensor:
        rois = rois.detach().flatten(1)
        boxes = decode_deltas(denormalized(deltas.detach().flatten(1)[:, 4:], self.normal), rois[:, 1:], inclusive=True)
        made = torch.cat([rois[:, :1], boxes], 1)
        if not self.training or not has_values(made):
            return made
        kept = (boxes[:, :2] <= boxes[:, 2:]).all(1)
        if truth is not None:
            kept &= truth.detach().flatten(1)[:, -1] < self.opt.gt_iou_thr
        self.require(bool(kept.any()), "no region is left: all boxes are inverted, or overlap the truth by gt_iou_thr")
        return made[kept]


class _Output(Layer, abstract=True):
    """Base of the layers that find boxes on maps. A subclass defines `maps`, the scores and deltas of each map."""

    effects = Effects.VALUES  # for the number of boxes
    more_options = ("bbox_reg_param",)

    def check(self, bottoms: Sequence[Tensor]) -> None:
        """Raise an error for options and bottoms that no subclass supports."""
        opt = self.opt
        self.exempt = tuple(range(len(bottoms)))
        self.require(opt.nms_type == "IOU", f'nms_type is "{opt.nms_type}", expected "IOU"')
        self.require(opt.field_whr > 1 and opt.field_xyr > 0, "field_whr must be above 1, and field_xyr above 0")
        for i, x in enumerate(bottoms):
            fact = f"{self.bottom_name(i)} has shape {shape_text(x.shape)}, expected (N, C, H, W)"
            self.require(x.dim() == 4 and min(x.shape[1:]) > 0, fact)
        self.normal = normal_of(self)
        self.uncompiled = torch.compiler.disable(_found)  # the shapes depend on values; takes a second to import

    def maps(self, bottoms: Sequence[Tensor]) -> Sequence[tuple[Tensor, Tensor, Fields]]:
        """For each map: the scores (N, G, H, W), the deltas (N, G, 4, H, W) and the fields."""
        raise NotImplementedError

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return self.uncompiled(self, [x.detach() for x in bottoms])[: self.top_count]


class BoxGroupOutput(_Output, bottoms=(2, None), tops=(1, 2)):
    """The region proposals of Cascade R-CNN, from maps of several scales with groups of fields.

    bottoms: pairs (probabilities, deltas (N G, 4, H, W)), each with a box_group_param of G fields field_w x field_h
    tops: rows [image, x1, y1, x2, y2], or [0, 1, 1, 10, 10] if there is none; optionally the rows with the score

        centre = d field + (column + 1/2) stride;  size = field e^d;  corners centre - size / 2 ... that + size - 1
        |d| of centres <= 1 / field_xyr, of sizes <= ln field_whr; first d bbox_std + bbox_mean (bbox_reg_param)
        score = 1 - probability[0] >= fg_thr; boxes are clipped to H stride x W stride, and dropped below min_size

    The max_nms_num best boxes (0: all) go through non-maximum suppression with iou_thr, and the best max_post_nms_num
    are kept. There is no gradient. Source: Cai and Vasconcelos, arXiv:1712.00726.
    """

    def setup(self, *bottoms: Tensor) -> None:
        self.check(bottoms)
        groups = self.opt.box_group_param
        fact = f"has {len(bottoms)} bottoms and {len(groups)} box_group_param, expected a pair of bottoms for each"
        self.require(len(bottoms) == 2 * len(groups), fact)
        sizes = set()
        for i, group in enumerate(groups):
            probability, deltas, count = bottoms[2 * i], bottoms[2 * i + 1], len(group.field_h)
            fact = f"box_group_param {i} needs as many field_w as field_h, one or more, and a stride above 0"
            self.require(count == len(group.field_w) > 0 and group.stride > 0, fact)
            fact = f"{self.bottom_name(2 * i + 1)} has shape {shape_text(deltas.shape)}, expected (N {count}, 4, H, W)"
            batch, _, *cells = probability.shape
            self.require(tuple(deltas.shape) == (batch, 4, *cells) and batch % count == 0, fact)
            sizes.add(batch // count)
        self.require(len(sizes) == 1, f"the pairs of bottoms have batches of {sorted(sizes)}, expected the same number")

    def maps(self, bottoms: Sequence[Tensor]) -> Sequence[tuple[Tensor, Tensor, Fields]]:
        made = []
        for group, probability, deltas in zip(self.opt.box_group_param, bottoms[::2], bottoms[1::2], strict=True):
            shape = (-1, len(group.field_w))
            score = 1 - probability[:, 0].unflatten(0, shape)
            made.append((score, deltas.unflatten(0, shape), (group.field_w, group.field_h, group.stride)))
        return made


class BoxOutput(_Output, bottoms=(1, None), tops=(1, 2)):
    """The region proposals of MS-CNN, from maps of several scales.

    bottoms: (N, classes + 4, H, W), scores of the background and the classes, then deltas; each with a field_w, field_h
    and downsample_rate   tops, boxes and options as for BoxGroupOutput

        score = largest class score - background score >= fg_thr

    Source: Cai et al., arXiv:1607.07155.
    """

    def setup(self, *bottoms: Tensor) -> None:
        self.check(bottoms)
        opt = self.opt
        for name in ("field_w", "field_h", "downsample_rate"):
            given = len(getattr(opt, name))
            self.require(given == len(bottoms), f"{name} is given {given} times, expected {len(bottoms)}, one a bottom")
        for i, x in enumerate(bottoms):
            fact = f"{self.bottom_name(i)} has shape {shape_text(x.shape)}, expected {bottoms[0].shape[0]} images of 6"
            self.require(x.shape[0] == bottoms[0].shape[0] and x.shape[1] > 5, f"{fact} channels or more")

    def maps(self, bottoms: Sequence[Tensor]) -> Sequence[tuple[Tensor, Tensor, Fields]]:
        opt = self.opt
        made: list[tuple[Tensor, Tensor, Fields]] = []
        for x, width, height, rate in zip(bottoms, opt.field_w, opt.field_h, opt.downsample_rate, strict=True):
            score = x[:, 1:-4].amax(1) - x[:, 0]
            made.append((score.unsqueeze(1), x[:, -4:].unsqueeze(1), ([width], [height], rate)))
        return made


Fields = tuple[Sequence[int], Sequence[int], float]
"""The widths and heights of a map's fields, and the distance of its cells in pixels."""


def _found(layer: _Output, bottoms: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Both tops. Shape inference, which has no values, returns the largest possible number of boxes."""
    opt, maps = layer.opt, layer.maps(bottoms)
    images = maps[0][0].shape[0]
    if not has_values(bottoms[0]):
        cells = sum(score.shape[1:].numel() for score, _, _ in maps)
        most = images * min(cells, opt.max_nms_num or cells, opt.max_post_nms_num or cells)
        return bottoms[0].new_empty(most, 5), bottoms[0].new_empty(most, 6)
    scores = torch.cat([score.flatten(1) for score, _, _ in maps], 1)
    boxes = torch.cat([_boxes(layer, deltas, fields) for _, deltas, fields in maps], 1)
    rows = [scores.new_empty(0, 6)]
    for image, (score, box) in enumerate(zip(scores, boxes, strict=True)):
        large = (box[:, 2:] - box[:, :2] + 1 >= opt.min_size).all(1)
        kept = ((score >= opt.fg_thr) & large).nonzero().flatten()
        kept = kept[best(score[kept], opt.max_nms_num or None)]
        kept = kept[nms(box[kept], score[kept], opt.iou_thr, offset=1)[: opt.max_post_nms_num or None]]
        number = torch.full_like(score[kept], image)
        rows.append(torch.cat([number.unsqueeze(1), box[kept], score[kept].unsqueeze(1)], 1))
    found = torch.cat(rows)
    if not len(found):
        found = found.new_tensor([[0, 1, 1, 10, 10, 0]])
    return found[:, :5].contiguous(), found


def _boxes(layer: _Output, deltas: Tensor, fields: Fields) -> Tensor:
    """The boxes (N, G H W, 4) for a map's deltas (N, G, 4, H, W), in the order of the scores, clipped to the image."""
    *sides, stride = fields
    height, width = deltas.shape[3:]
    moved = denormalized(deltas.permute(0, 1, 3, 4, 2), layer.normal)
    near, far = 1 / layer.opt.field_xyr, math.log(layer.opt.field_whr)
    field = moved.new_tensor([list(side) for side in sides]).T.view(1, -1, 1, 1, 2)
    cell = [torch.arange(n, device=moved.device, dtype=moved.dtype) + 0.5 for n in (width, height)]
    middle = torch.stack([cell[0].expand(height, width), cell[1].view(-1, 1).expand(height, width)], -1) * stride
    size = moved[..., 2:].clamp(-far, far).exp() * field
    corner = moved[..., :2].clamp(-near, near) * field + middle - size / 2
    boxes = torch.cat([corner, corner + size - 1], -1).flatten(1, 3)
    limit = boxes.new_tensor([width, height, width, height]) * stride - 1
    return boxes.clamp(min=0).minimum(limit)


def normal_of(layer: Layer) -> list[tuple[float, float]]:
    """bbox_std and bbox_mean of each of the four deltas."""
    param = layer.spec.bbox_reg_param
    for name in ("bbox_mean", "bbox_std"):
        given = len(getattr(param, name))
        layer.require(given in (0, 4), f"bbox_reg_param has {given} values of {name}, expected 4, or none")
    return list(zip(list(param.bbox_std) or [1.0] * 4, list(param.bbox_mean) or [0.0] * 4, strict=True))


def denormalized(deltas: Tensor, normal: list[tuple[float, float]]) -> Tensor:
    """Deltas (..., 4) times bbox_std plus bbox_mean."""
    return torch.stack([d * std + mean for d, (std, mean) in zip(deltas.unbind(-1), normal, strict=True)], -1)
