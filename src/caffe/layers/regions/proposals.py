"""Region proposals: anchors with predicted deltas, after non-maximum suppression."""

from __future__ import annotations

import torch
from torch import Tensor

from caffe.layers.base import Effects, Layer, has_values, shape_text
from caffe.layers.regions.rois import nearest
from caffe.layers.support.boxes import best, decode_deltas, nms

__all__ = ["Proposal"]


class Proposal(Layer, bottoms=3, tops=(1, 2)):
    """The regions that a region proposal network (RPN) finds in an image.

    bottoms: scores (1, 2 A, H, W) of A anchors, first the background scores, then the object scores; deltas
    (1, 4 A, H, W); image [height, width, scale]
    tops: rois (R, 5), rows [0, x1, y1, x2, y2] of the image; optionally their scores (R, 1)

    Anchors: base_size in each ratio, then in each scale, on a grid of feat_stride pixels. Boxes are decoded, clipped to
    the image and dropped if a side is below min_size times the scale. The pre_nms_topn best boxes go through
    non-maximum suppression with nms_thresh, and the best post_nms_topn are kept. There is no gradient.
    Source: Ren et al., arXiv:1506.01497; PVANET.
    """

    exempt = (0, 1, 2)
    effects = Effects.VALUES

    def setup(self, scores: Tensor, deltas: Tensor, image: Tensor) -> None:
        opt = self.opt
        self.require(len(opt.ratio) > 0 and len(opt.scale) > 0, "ratio and scale must each be given at least once")
        self.require(min(*opt.ratio, *opt.scale) > 0, "every ratio and scale must be positive")
        self.require(opt.feat_stride > 0 and opt.base_size > 0, "feat_stride and base_size must be positive")
        self.require(opt.post_nms_topn > 0 and opt.pre_nms_topn > 0, "pre_nms_topn and post_nms_topn must be positive")
        self.count = len(opt.ratio) * len(opt.scale)
        fact = f"{self.bottom_name(0)} has shape {shape_text(scores.shape)}, expected (1, {2 * self.count}, H, W)"
        self.require(scores.dim() == 4 and tuple(scores.shape[:2]) == (1, 2 * self.count), fact)
        wanted = (1, 4 * self.count, *scores.shape[2:])
        fact = f"{self.bottom_name(1)} has shape {shape_text(deltas.shape)}, expected {shape_text(wanted)}"
        self.require(tuple(deltas.shape) == wanted, fact)
        fact = f"{self.bottom_name(2)} has shape {shape_text(image.shape)}, expected (1, 3): height, width, scale"
        self.require(image.numel() == 3, fact)
        self.uncompiled = torch.compiler.disable(_proposals)  # the shapes depend on values; takes a second to import

    @property
    def threshold(self) -> float:
        """The overlap above which a region is dropped. iou_threshold is the option's name in Ascend's Caffe."""
        return self.opt.iou_threshold if self.opt.HasField("iou_threshold") else self.opt.nms_thresh

    def forward(self, scores: Tensor, deltas: Tensor, image: Tensor) -> tuple[Tensor, ...]:
        return self.uncompiled(self, scores.detach(), deltas.detach(), image.detach())[: self.top_count]


def _proposals(layer: Proposal, scores: Tensor, deltas: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Both tops. Shape inference, which has no values, returns the largest possible number of regions."""
    opt, (height, width) = layer.opt, scores.shape[2:]
    if not has_values(scores):
        most = min(opt.post_nms_topn, opt.pre_nms_topn, height * width * layer.count)
        return scores.new_empty(most, 5), scores.new_empty(most, 1)
    order = (0, 2, 3, 1)  # row, column, anchor
    score = scores[:, layer.count :].permute(order).flatten()
    offsets = deltas.view(layer.count, 4, height, width).permute(2, 3, 0, 1).reshape(-1, 4)
    boxes = decode_deltas(offsets, _grid(layer, height, width, deltas))
    tall, wide, scale = image.flatten().tolist()
    limit = boxes.new_tensor([wide, tall, wide, tall]) - 1
    boxes = boxes.clamp(min=0).minimum(limit)
    large = (boxes[:, 2:] - boxes[:, :2] + 1 >= opt.min_size * scale).all(1).nonzero().flatten()
    kept = large[best(score[large], opt.pre_nms_topn)]
    kept = kept[nms(boxes[kept], score[kept], layer.threshold, offset=1)[: opt.post_nms_topn]]
    return torch.cat([boxes.new_zeros(len(kept), 1), boxes[kept]], 1), score[kept].unsqueeze(1)


def _grid(layer: Proposal, height: int, width: int, like: Tensor) -> Tensor:
    """The anchors (height width A, 4) of all cells."""
    ys, xs = (torch.arange(n, device=like.device, dtype=like.dtype) * layer.opt.feat_stride for n in (height, width))
    cell = torch.stack([xs.expand(height, width), ys.view(-1, 1).expand(height, width)] * 2, -1)
    return (cell.unsqueeze(2) + _anchors(layer, like)).view(-1, 4)


def _anchors(layer: Proposal, like: Tensor) -> Tensor:
    """The anchors (A, 4) of cell 0, centred on a square of base_size pixels. Sides are rounded for each ratio."""
    opt = layer.opt
    ratio, scale = (torch.tensor(list(values), dtype=torch.float64) for values in (opt.ratio, opt.scale))
    width = nearest((opt.base_size**2 / ratio).sqrt())
    sides = torch.stack([width, nearest(width * ratio)], 1)
    half = ((sides.unsqueeze(1) * scale.view(-1, 1)).view(-1, 2) - 1) / 2
    middle = (opt.base_size - 1) / 2
    return torch.cat([middle - half, middle + half], 1).to(like)
