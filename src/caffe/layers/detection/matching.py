"""Matching of prior boxes to ground truth boxes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from caffe.layers.base import Layer
from caffe.layers.support.exact import is_exact

__all__ = ["IGNORED", "UNMATCHED", "Matches", "Truth", "match", "read_truth"]

UNMATCHED, IGNORED = -1, -2
_LEAST = 1e-6
"""Overlaps up to this value count as 0."""


@dataclass(frozen=True)
class Truth:
    """The ground truth boxes of a batch, in order."""

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

    Rows with image -1 are padding. `images` is the number of images in the batch, if known. Raises the layer's error
    for an invalid image number and, unless `any_label`, for an invalid label.
    """
    rows = rows.detach().reshape(-1, 8)
    rows = rows[rows[:, 0] != -1]
    image, label = rows[:, 0].long(), rows[:, 1].long()
    if is_exact():  # in a gradient check the truth may hold random numbers
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
    """The match of each prior (P) in each group (G) of the truth: an index into the truth, UNMATCHED or IGNORED."""

    group: Tensor  # (G), the group's number
    index: Tensor  # (G, P), indices into the truth, or UNMATCHED or IGNORED
    overlap: Tensor  # (G, P), the largest overlap with a box of the group

    def pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Group number, prior and index into the truth of all matches (M)."""
        row, prior = (self.index >= 0).nonzero().unbind(1)
        return self.group[row], prior, self.index[row, prior]

    def regrouped(self, group: Tensor) -> Matches:
        """The same matches in other groups. `group` (T) gives the new group of each ground truth box."""
        _, prior, place = self.pairs()
        groups, row = torch.unique(group[place], return_inverse=True)
        index = self.index.new_full((len(groups), self.index.shape[1]), UNMATCHED)
        index[row, prior] = place
        return Matches(groups, index, self.overlap.new_zeros(index.shape))


def match(overlap: Tensor, group: Tensor, ignored: Tensor, threshold: float | None) -> Matches:
    """Match priors (P) to the boxes (T) of each group of the truth, given their overlaps (T, P).

    First each box gets a prior: the pair with the largest overlap is matched repeatedly, until no pair overlaps. Then,
    unless `threshold` is None, each other prior is matched to the box that it overlaps most, if the overlap is at least
    the threshold. Of equal overlaps the first prior and box win. `ignored` (T, P) marks priors that a group skips.
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
    """Indices into the truth of each group's boxes (G, M), given the group of each box. T is padding."""
    count = torch.bincount(row, minlength=groups)
    order = torch.argsort(row, stable=True)
    slot = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row[order]]
    table = row.new_full((groups, int(count.max()) if groups else 1), len(row))
    table[row[order], slot] = order
    return table


def _match_boxes(found: Matches, padded: Tensor, table: Tensor) -> None:
    """Match each box (M) of each group (G) to a different prior, for all groups at once. Overwrites `padded`."""
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
