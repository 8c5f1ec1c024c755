"""AnchorTargetLayer: which anchors are objects, and how far each is from its object."""

from __future__ import annotations

from collections.abc import Sequence

import torch

import caffe
from caffe.layers.support.boxes import encode_deltas, overlaps
from rpn.anchors import SIDES, Quiet, anchors, as_map

OBJECT, NOTHING = 0.6, 0.3  # overlap from which an anchor is an object, and below which it is background
BATCH = 64


class AnchorTargetLayer(Quiet):
    """bottoms: the scores (1, 2 A, H, W), of which only the shape is read; gt_boxes (K, 5); im_info; data
    tops: labels (1, 1, A H, W) with 1 for objects, 0 for background, -1 for neither; targets, inside weights and
        outside weights (1, 4 A, H, W)
    """

    def shape(self, bottom: Sequence[caffe.Blob], top: Sequence[caffe.Blob]) -> None:
        height, width = bottom[0].data.shape[2:]
        top[0].reshape(1, 1, len(SIDES) * height, width)
        for blob in top[1:]:
            blob.reshape(1, 4 * len(SIDES), height, width)

    def forward(self, bottom: Sequence[caffe.Blob], top: Sequence[caffe.Blob]) -> None:
        height, width = bottom[0].data.shape[2:]
        tall, wide = bottom[2].data[0, :2]
        every = anchors(height, width, self.given["feat_stride"])
        truth = torch.from_numpy(bottom[1].data[:, :4].copy())
        share = overlaps(every, truth, 1)
        share[~((every >= 0).all(1) & (every[:, 2] < wide) & (every[:, 3] < tall))] = -1  # anchors that leave the image
        most, box = share.max(1)
        positive = (most >= OBJECT) | ((share == share.amax(0)) & (share > 0)).any(1)
        chosen = self.sample(positive, BATCH // 2)
        others = self.sample(~positive & (most >= 0) & (most < NOTHING), BATCH - len(chosen))
        labels, weights = torch.full_like(most, -1), torch.zeros_like(every)
        labels[chosen], labels[others], weights[chosen] = 1, 0, 1
        self.fill(top[0], as_map(labels, height, width).reshape(1, 1, -1, width))
        for blob, rows in zip(top[1:], (encode_deltas(truth[box], every), weights, weights / BATCH), strict=True):
            self.fill(blob, as_map(rows, height, width))
