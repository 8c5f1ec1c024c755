"""ProposalTargetLayer: a sample of the regions, with the class and the box that each should get."""

from __future__ import annotations

from collections.abc import Sequence

import torch

import caffe
from caffe.layers.support.boxes import encode_deltas, overlaps
from rpn.anchors import Quiet

DEVIATIONS = (0.1, 0.1, 0.2, 0.2)  # the targets are divided by these, so that they vary by about 1
BATCH, OBJECTS = 32, 12


class ProposalTargetLayer(Quiet):
    """bottoms: regions (R, 5), gt_boxes (K, 5)
    tops: regions (S, 5); their labels (S); targets, inside weights and outside weights (S, 4 C)
    """

    def shape(self, bottom: Sequence[caffe.Blob], top: Sequence[caffe.Blob]) -> None:
        columns = 4 * self.given["num_classes"]
        for blob, shape in zip(top, ((1, 5), (1,), *[(1, columns)] * 3), strict=True):
            blob.reshape(*shape)

    def forward(self, bottom: Sequence[caffe.Blob], top: Sequence[caffe.Blob]) -> None:
        truth = torch.from_numpy(bottom[1].data.copy())
        own = torch.cat([torch.zeros(len(truth), 1), truth[:, :4]], 1)
        regions = torch.cat([torch.from_numpy(bottom[0].data.copy()), own])
        most, box = overlaps(regions[:, 1:], truth[:, :4], 1).max(1)
        objects = self.sample(most >= 0.5, OBJECTS)
        places = torch.cat([objects, self.sample(most < 0.5, BATCH - len(objects))])
        labels = truth[box[places], 4].clone()
        labels[len(objects) :] = 0
        deltas = encode_deltas(truth[box[places], :4], regions[places, 1:]) / torch.tensor(DEVIATIONS)
        targets, weights = (torch.zeros(len(places), self.given["num_classes"], 4) for _ in range(2))
        rows = torch.arange(len(objects))
        targets[rows, labels[rows].long()] = deltas[rows]
        weights[rows, labels[rows].long()] = 1
        for blob, values in zip(top, (regions[places], labels, *map(flat, (targets, weights, weights))), strict=True):
            self.fill(blob, values.numpy())


def flat(rows: torch.Tensor) -> torch.Tensor:
    """Return (S, C, 4) as (S, 4 C)."""
    return rows.flatten(1)
