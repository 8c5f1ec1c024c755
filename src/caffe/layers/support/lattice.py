"""The permutohedral lattice: Gaussian filters in several dimensions, in time proportional to the number of points."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Lattice"]


class Lattice:
    """A Gaussian filter with standard deviation 1 between points, approximated as by Adams et al. (Eurographics 2010).

    Each point is a mixture of the d + 1 corners of the simplex around it. A filter moves values to the corners, blurs
    them along the d + 1 directions of the lattice, and reads them back at the points.
    """

    def __init__(self, points: Tensor) -> None:
        """`points` (N, d) are features, each divided by its standard deviation."""
        d = points.shape[1]
        elevated = _elevated(points.double())
        corner, rank = _simplex(elevated)
        self.weights = _barycentric(elevated, corner, rank).to(points.dtype)  # (N, d + 1)
        shift = torch.arange(d + 1, device=points.device)
        steps = shift.view(1, -1, 1) - (d + 1) * (rank.unsqueeze(1) > d - shift.view(1, -1, 1)).long()
        keys = corner.unsqueeze(1) + steps  # (N, d + 1, d + 1)
        self.low = keys.amin((0, 1))[:-1] - d - 1
        base = keys.amax((0, 1))[:-1] - self.low + d + 2
        self.base = torch.cat([base.new_ones(1), base[:-1].cumprod(0)])
        self.known, self.place = torch.unique(self._packed(keys), return_inverse=True)
        ways = 1 - (d + 1) * torch.eye(d + 1, dtype=torch.int64, device=points.device)
        self.near = [(self._find(keys - way), self._find(keys + way)) for way in ways]
        self.scale = 1 / (1 + 2.0**-d)

    def _packed(self, keys: Tensor) -> Tensor:
        """One integer for each corner (..., d + 1). The last coordinate is left out: the sum of all is 0."""
        return ((keys[..., :-1] - self.low) * self.base).sum(-1)

    def _find(self, keys: Tensor) -> Tensor:
        """Index of the neighbour of each known corner, given for each point; the number of corners if none is known."""
        moved = torch.empty_like(self.known)
        moved[self.place.flatten()] = self._packed(keys).flatten()
        index = torch.searchsorted(self.known, moved).clamp(max=len(self.known) - 1)
        return index.where(self.known[index] == moved, len(self.known))

    def filter(self, values: Tensor) -> Tensor:
        """Filter values (N, M) of the points."""
        share = self.weights.unsqueeze(2) * values.unsqueeze(1)
        held = values.new_zeros(len(self.known) + 1, values.shape[1])
        held.index_add_(0, self.place.flatten(), share.flatten(0, 1))
        for one, other in self.near:
            held[:-1] = held[:-1] + (held[one] + held[other]) / 2
        return (held[self.place] * self.weights.unsqueeze(2)).sum(1) * self.scale


def _elevated(points: Tensor) -> Tensor:
    """The points (N, d) on the plane of d + 1 coordinates whose sum is 0, scaled to the blur of the lattice."""
    d = points.shape[1]
    scale = [math.sqrt(2 / 3) * (d + 1) / math.sqrt((i + 1) * (i + 2)) for i in range(d)]
    scaled = points * points.new_tensor(scale)
    behind = scaled.flip(1).cumsum(1).flip(1)  # sums from each coordinate on
    first = torch.cat([behind, behind.new_zeros(len(points), 1)], 1)
    index = torch.arange(1, d + 1, device=points.device)
    return torch.cat([first[:, :1], first[:, 1:] - index * scaled], 1)


def _simplex(elevated: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest lattice point (N, d + 1) with remainder 0, and the rank of each coordinate's distance from it."""
    size = elevated.shape[1]
    near = torch.floor(elevated / size + 0.5).long()
    excess = near.sum(1, keepdim=True)
    corner = near * size
    order = torch.argsort(elevated - corner, dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(size, device=order.device).expand_as(order))
    rank = rank + excess
    over, under = rank >= size, rank < 0
    corner = corner - size * over.long() + size * under.long()
    return corner, rank - size * over.long() + size * under.long()


def _barycentric(elevated: Tensor, corner: Tensor, rank: Tensor) -> Tensor:
    """The weight (N, d + 1) of each corner of the simplex, by remainder."""
    size = elevated.shape[1]
    share = (elevated - corner) / size
    made = elevated.new_zeros(len(elevated), size + 1)
    made.scatter_add_(1, size - 1 - rank, share)
    made.scatter_add_(1, size - rank, -share)
    made[:, 0] += 1 + made[:, size]
    return made[:, :size]
