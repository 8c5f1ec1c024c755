"""SSD's loss as a PyTorch user writes it: tensors of a fixed shape, no loop over images or boxes."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MultiBox(nn.Module):
    """The loss for priors (1, 2, P 4), corners and variances, with three negatives for each match.

    The true boxes of an image are the rows with its number. All images have the same number of rows.
    """

    def __init__(self, priors: np.ndarray, classes: int) -> None:
        super().__init__()
        corners, variances = torch.tensor(priors).view(2, -1, 4)
        self.classes = classes
        self.register_buffer("corners", corners)
        self.register_buffer("variances", variances)
        self.register_buffer(
            "centres", torch.cat([corners[:, :2] + corners[:, 2:], corners[:, 2:] - corners[:, :2]], 1)
        )
        self.centres[:, :2] /= 2

    def forward(self, loc: Tensor, conf: Tensor, label: Tensor) -> Tensor:
        images = len(loc)
        loc, conf = loc.view(images, -1, 4), conf.view(images, -1, self.classes)
        rows = label.view(images, -1, 8)
        boxes, kinds = rows[..., 3:7], rows[..., 1].long()
        matched, place = self.match(boxes)
        box = boxes.gather(1, place.unsqueeze(-1).expand(-1, -1, 4))
        target = torch.where(matched, kinds.gather(1, place), 0)
        count = matched.sum()
        errors = F.smooth_l1_loss(loc, self.encoded(box), reduction="none").sum(-1)
        costs = F.cross_entropy(conf.flatten(0, 1), target.flatten(), reduction="none").view(images, -1)
        with torch.no_grad():
            rank = costs.masked_fill(matched, -1).argsort(1, descending=True).argsort(1)
            chosen = matched | (rank < 3 * matched.sum(1, keepdim=True))
        return ((errors * matched).sum() + (costs * chosen).sum()) / count.clamp(min=1)

    @torch.no_grad()
    def match(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return whether each prior is matched, and the index of its box, each (N, P)."""
        overlap = self.overlaps(boxes)
        most, place = overlap.max(1)
        best = overlap.argmax(2)
        numbers = torch.arange(boxes.shape[1], device=boxes.device).expand_as(best)
        return (most >= 0.5).scatter(1, best, True), place.scatter(1, best, numbers)

    def overlaps(self, boxes: Tensor) -> Tensor:
        """Return the intersection over union of boxes (N, T, 4) and the priors: (N, T, P)."""
        one, other = boxes.unsqueeze(2), self.corners
        sides = (torch.minimum(one[..., 2:], other[:, 2:]) - torch.maximum(one[..., :2], other[:, :2])).clamp(min=0)
        common = sides.prod(-1)
        sizes = (one[..., 2:] - one[..., :2]).prod(-1), (other[:, 2:] - other[:, :2]).prod(-1)
        return common / (sizes[0] + sizes[1] - common)

    def encoded(self, box: Tensor) -> Tensor:
        """Return the offsets (N, P, 4) that move the priors to the boxes."""
        centre, side = (box[..., :2] + box[..., 2:]) / 2, box[..., 2:] - box[..., :2]
        moved = (centre - self.centres[:, :2]) / self.centres[:, 2:]
        return torch.cat([moved, (side / self.centres[:, 2:]).log()], -1) / self.variances
