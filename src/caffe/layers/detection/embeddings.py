"""The vectors that belong to matched detections, for training of heads behind an SSD."""

from __future__ import annotations

import torch
from torch import Tensor

from caffe.layers.base import Effects, Layer, has_values, shape_text
from caffe.layers.support.values import untraced

__all__ = ["AnchorEmbeddingExtractor"]

_COLUMNS = 11
_ITEM, _BOX, _ANCHOR, _TRACK, _ACTION, _X, _Y = 0, slice(2, 6), 6, 7, 8, 9, 10
_TRACKS = 1000
"""The source tells instances apart by track * 1000 + item."""


class _Extractor(Layer, abstract=True):
    """Base of AnchorEmbeddingExtractor: the run."""

    def extract(self, detections: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
        """The tops. If no detection is valid, each has one row: a vector of zeros, and -1 in the others."""
        opt, dim = self.opt, maps[0].shape[1]
        if not has_values(detections):
            sizes = ((1, dim), (1,), (1, 5) if opt.output_proposals else (1,))
            return tuple(maps[0].new_empty(size) for size in sizes[: self.top_count])
        rows = detections.detach().reshape(-1, _COLUMNS)
        kept = rows[:, _ITEM] > -1
        if opt.HasField("num_valid_actions"):
            kept &= rows[:, _ACTION].trunc() < opt.num_valid_actions
        rows = rows[kept]
        whole = rows.trunc().long()
        place = self.places(whole, len(maps[0]), *maps[0].shape[2:])
        vectors = torch.stack([x.movedim(1, -1).flatten(0, 2) for x in maps])[whole[:, _ANCHOR], place]
        labels = rows[:, opt.label_src_pos].trunc()
        if opt.output_proposals:
            extra = torch.cat([rows[:, _ITEM].trunc().unsqueeze(1), rows[:, _BOX]], 1)
        else:
            _, owner, counts = (whole[:, _TRACK] * _TRACKS + whole[:, _ITEM]).unique(
                return_inverse=True, return_counts=True
            )
            extra = 1 / counts.to(rows)[owner]
        if not len(rows):
            vectors, labels = vectors.sum(0, keepdim=True), labels.new_full((1,), -1)
            extra = extra.new_full((1, *extra.shape[1:]), -1)
        return (vectors, labels, extra)[: self.top_count]

    def places(self, rows: Tensor, items: int, height: int, width: int) -> Tensor:
        """The index of each row's cell in maps (N, H, W), flattened. Indices outside the maps are an error."""
        for name, column, most in (("item", _ITEM, items), ("anchor", _ANCHOR, 4), ("x", _X, width), ("y", _Y, height)):
            wrong = rows[(rows[:, column] < 0) | (rows[:, column] >= most)]
            if len(wrong):
                fact = f"{self.bottom_name(0)} contains the {name} {int(wrong[0, column])}"
                self.error(f"{fact}, expected 0 to {most - 1}")
        return (rows[:, _ITEM] * height + rows[:, _Y]) * width + rows[:, _X]


class AnchorEmbeddingExtractor(_Extractor, bottoms=5, tops=(2, 3), options="embedding_extractor_param"):
    """Picks the vector of each matched detection from the map of its anchor.

    bottoms: detections (1, 1, D, 11), rows [item, score, xmin, ymin, xmax, ymax, anchor, track, action, x, y]; four
    maps (N, E, H, W), one for each anchor   tops: vectors (V, E); labels (V), column label_src_pos; optionally with
    output_proposals rows [item, xmin, ymin, xmax, ymax] (V, 5), with output_instance_weights 1 / (number of detections
    of the same track and item) (V)

        vector = map[anchor][item, :, y, x], of the rows with item >= 0 and action < num_valid_actions (if it is given)

    V depends on the values. Without a valid row the tops have one row: zeros, and -1 in the others.
    Source: openvinotoolkit/training_toolbox_caffe, anchor_embedding_extractor_layer.cpp.
    """

    constant = (0,)
    exempt = (0,)
    effects = Effects.VALUES

    def setup(self, detections: Tensor, *maps: Tensor) -> None:
        opt = self.opt
        self.require(opt.num_anchors == 4, f"num_anchors is {opt.num_anchors}, expected 4, the only number known")
        fact = f"label_src_pos is {opt.label_src_pos}, expected a column, 0 to {_COLUMNS - 1}, which must be given"
        self.require(opt.HasField("label_src_pos") and opt.label_src_pos < _COLUMNS, fact)
        fact = "output_instance_weights and output_proposals exclude each other"
        self.require(not (opt.output_instance_weights and opt.output_proposals), fact)
        third = opt.output_instance_weights or opt.output_proposals
        self.require(self.top_count == 2 or third, "a third top needs output_instance_weights or output_proposals")
        fact = f"{self.bottom_name(0)} has shape {shape_text(detections.shape)}, expected (1, 1, D, {_COLUMNS})"
        self.require(detections.dim() > 0 and detections.shape[-1] == _COLUMNS, fact)
        for index, x in enumerate(maps, 1):
            fact = f"{self.bottom_name(index)} has shape {shape_text(x.shape)}, expected (N, E, H, W), as each map"
            self.require(x.dim() == 4 and x.numel() > 0 and x.shape == maps[0].shape, fact)

    def forward(self, detections: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
        return untraced(self.extract)(detections, *maps)
