"""ProposalLayer: the regions that the region proposal network finds."""

from __future__ import annotations

from collections.abc import Sequence

import torch

import caffe
from caffe.layers.support.boxes import decode_deltas, nms
from rpn.anchors import SIDES, Quiet, anchors, by_cell

SETTINGS = {"TRAIN": (300, 100), "TEST": (200, 30)}  # boxes before and after suppression
SMALLEST = 6


class ProposalLayer(Quiet):
    """bottoms: probabilities (1, 2 A, H, W), deltas (1, 4 A, H, W), im_info
    top: regions (R, 5), rows [0, x1, y1, x2, y2]
    """

    def shape(self, bottom: Sequence[caffe.Blob], top: Sequence[caffe.Blob]) -> None:
        top[0].reshape(1, 5)

    def forward(self, bottom: Sequence[caffe.Blob], top: Sequence[caffe.Blob]) -> None:
        before, after = SETTINGS["TRAIN" if self.phase == caffe.TRAIN else "TEST"]
        height, width = bottom[0].data.shape[2:]
        tall, wide = bottom[2].data[0, :2]
        score = by_cell(bottom[0].data[:, len(SIDES) :], 1).flatten()
        boxes = decode_deltas(by_cell(bottom[1].data, 4), anchors(height, width, self.given["feat_stride"]))
        boxes = boxes.clamp(min=0).minimum(torch.tensor([wide, tall, wide, tall]) - 1)
        large = (boxes[:, 2:] - boxes[:, :2] + 1 >= SMALLEST).all(1).nonzero().flatten()
        kept = large[nms(boxes[large], score[large], 0.7, offset=1, top_k=before)[:after]]
        self.fill(top[0], torch.cat([torch.zeros(len(kept), 1), boxes[kept]], 1).numpy())
