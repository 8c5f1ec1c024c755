"""Which prior box answers for which box of the truth, and which priors count as negatives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from caffe.layers.base import Layer
from caffe.layers.support.exact import is_exact

__all__ = ["IGNORED", "UNMATCHED", "Matches", "Truth", "match", "read_truth"]

UNMATCHED, IGNORED = -1, -2
_LEAST = 1e-6
"""Overlaps up to here count as none."""


@dataclass(frozen=True)
class Truth:
    """The boxes of a batch that have to be found, in order."""

    image: Tensor  # (T)
    label: Tensor  # (T)
    box: Tensor  # (T, 4)
    difficult: Tensor  # (T)

    def only(self, kept: Tensor) -> Truth:
        """The boxes that `kept` (T) marks."""
        return Truth(self.image[kept], self.label[kept], self.box[kept], self.difficult[kept])


def read_truth(
    layer: Layer, rows: Tensor, classes: int, background: int, images: int | None = None, any_label: bool = False
) -> Truth:
    """The truth in rows (..., 8) of [image, label, instance, xmin, ymin, xmax, ymax, difficult].

    Rows with image -1 are padding. `images` is how many the batch has, where that is known. Raises the layer's error
    for an image or, unless `any_label`, for a label that cannot be.
    """
    rows = rows.detach().reshape(-1, 8)
    rows = rows[rows[:, 0] != -1]
    image, label = rows[:, 0].long(), rows[:, 1].long()
    if is_exact():  # the gradient check may have filled the truth with random numbers
        sound = (label != background) & (label >= 0) & (any_label | (label < classes)) & (image >= 0)
        rows = rows[sound if images is None else sound & (image < images)]
        image, label = rows[:, 0].long(), rows[:, 1].long()
    for wrong, fact in (
        (label == background, f"which is background_label_id; expected another one below {classes}"),
        (torch.zeros_like(label) if any_label else (label < 0) | (label >= classes), f"expected 0 to {classes - 1}"),
    ):
        if wrong.any():
            layer.error(f"the truth has a box with the label {int(label[wrong.bool()][0])}, {fact}")
    if images is not None and ((image < 0) | (image >= images)).any():
        layer.error(
            f"the truth has boxes of images {int(image.min())} to {int(image.max())}, the batch {images} images"
        )
    return Truth(image, label, rows[:, 3:7], rows[:, 7] != 0)


@dataclass
class Matches:
    """For each of the groups (G) that the truth forms and each prior (P): the place in the truth, or why none."""

    group: Tensor  # (G), the group's number
    index: Tensor  # (G, P), places in the truth, or UNMATCHED or IGNORED
    overlap: Tensor  # (G, P), the largest overlap with a box of the group

    def pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Group number, prior and place in the truth of all that are matched (M)."""
        row, prior = (self.index >= 0).nonzero().unbind(1)
        return self.group[row], prior, self.index[row, prior]

    def regrouped(self, group: Tensor) -> Matches:
        """The same matches in other groups, given that (T) of each place in the truth."""
        _, prior, place = self.pairs()
        groups, row = torch.unique(group[place], return_inverse=True)
        index = self.index.new_full((len(groups), self.index.shape[1]), UNMATCHED)
        index[row, prior] = place
        return Matches(groups, index, self.overlap.new_zeros(index.shape))


def match(overlap: Tensor, group: Tensor, ignored: Tensor, threshold: float | None) -> Matches:
    """Match priors (P) to the boxes (T) of each group of the truth, given their overlaps (T, P).

    First each box gets a prior: again and again the pair with the largest overlap, while there is one. Then, unless
    `threshold` is None, each prior that is left takes the box that it overlaps most, if by at least the threshold. Of
    equals the first prior and the first box win. `ignored` (T, P) marks priors that a group passes by.
    """
    overlap = overlap.masked_fill((overlap <= _LEAST) | ignored, -1)
    groups, row = torch.unique(group, return_inverse=True)
    table = _by_group(row, len(groups))
    padded = torch.cat([overlap, overlap.new_full((1, overlap.shape[1]), -1)])[table]
    most, place = padded.max(1)
    found = Matches(groups, torch.full_like(place, UNMATCHED), most.clamp(min=0))
    found.index[torch.cat([ignored, ignored.new_zeros(1, ignored.shape[1])])[table].any(1)] = IGNORED
    _match_boxes(found, padded, table)
    if threshold is not None:
        taken = (found.index == UNMATCHED) & (most >= threshold) & (most > 0)
        found.index = torch.where(taken, table.gather(1, place), found.index)
    return found


def _by_group(row: Tensor, groups: int) -> Tensor:
    """The places in the truth of each group's boxes (G, M), given each box's group; T where a group has fewer."""
    count = torch.bincount(row, minlength=groups)
    order = torch.argsort(row, stable=True)
    slot = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row[order]]
    table = row.new_full((groups, int(count.max()) if groups else 1), len(row))
    table[row[order], slot] = order
    return table


def _match_boxes(found: Matches, padded: Tensor, table: Tensor) -> None:
    """Give each box (M) of each group (G) a prior of its own, in all groups at once. Overwrites `padded` (G, M, P)."""
    most, prior = padded.max(2)
    for _ in range(padded.shape[1]):
        largest = most.amax(1, keepdim=True)
        rows = (largest[:, 0] > 0).nonzero().flatten()
        if not len(rows):
            return
        ties = most == largest
        chosen = prior.where(ties, padded.shape[2]).amin(1, keepdim=True)
        slot = (ties & (prior == chosen)).int().argmax(1)[rows]
        taken = chosen[rows, 0]
        found.index[rows, taken], found.overlap[rows, taken] = table[rows, slot], largest[rows, 0]
        padded[rows, :, taken] = -1
        padded[rows, slot] = -1
        most[rows, slot] = -1
        stale = torch.zeros_like(ties)
        stale[rows] = (prior[rows] == taken.unsqueeze(1)) & (most[rows] > 0)
        row, box = stale.nonzero().unbind(1)
        most[row, box], prior[row, box] = padded[row, box].max(1)
