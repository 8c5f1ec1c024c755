"""Excitation of the cells of objects while a detector trains."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from caffe.layers.base import Effects, Layer, has_values, shape_text

__all__ = ["AssistedExcitation"]


class AssistedExcitation(Layer, bottoms=3):
    """Adds the mean over the channels to the cells of objects, with a weight that falls to 0 during training.

    bottoms: x (N, C, H, W); truth (N, T 5), rows [label, x, y, w, h] in fractions of the image, up to the first x = 0;
    the mean of x over its channels (N, H, W), from a Reduction   top y of x's shape

        TRAIN  y = x + alpha mean in the cells round((x -+ w / 2) W) ... and so on of each object, x elsewhere
        TEST   y = x;     alpha = cos(pi / 2 run / max_iter), 0 after max_iter runs

    The fork takes max_iter and the iteration from the solver. Here runs are counted, and max_iter must be given in
    assisted_excitation_param. The mean gets no gradient. Source: Derakhshani et al., arXiv:1906.05388;
    eric612/MobileNet-YOLO, assisted_excitation_layer.cpp.
    """

    exempt = (1, 2)
    constant = (1, 2)
    effects = Effects.BUFFERS
    runs: Tensor

    def setup(self, x: Tensor, truth: Tensor, mean: Tensor) -> None:
        fact = f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (N, C, H, W)"
        self.require(x.dim() == 4 and min(x.shape[1:]) > 0, fact)
        rows = truth.dim() > 1 and len(truth) == len(x) and truth.shape[1:].numel() % 5 == 0
        fact = f"{self.bottom_name(1)} has shape {shape_text(truth.shape)}, expected rows of five for each of {len(x)}"
        self.require(rows, f"{fact} images")
        wanted = len(x) * x.shape[2:].numel()
        fact = f"{self.bottom_name(2)} has shape {shape_text(mean.shape)}, expected (N, H, W): the mean over channels"
        self.require(mean.numel() == wanted, fact)
        self.register_buffer("runs", torch.zeros(1))

    @property
    def effects_now(self) -> Effects:
        return self.effects if self.training else Effects.NONE

    def example(self, index: int, x: Tensor) -> Tensor | None:
        return torch.full_like(x, 0.5) if index == 1 else None

    def forward(self, x: Tensor, truth: Tensor, mean: Tensor) -> Tensor:
        if not self.training:
            return x.clone()
        most = self.opt.max_iter
        fact = "max_iter is needed to train; write assisted_excitation_param { max_iter: N } with the solver's number"
        self.require(most > 0 or not has_values(x), fact)
        alpha = torch.cos((self.runs / max(1, most)).clamp(max=1) * (math.pi / 2)).to(x.dtype)
        if has_values(x):
            self.runs.add_(1)
        inside = _inside(truth.detach().reshape(len(x), -1, 5), *x.shape[2:])
        return x + (alpha * mean.detach().reshape(len(x), *x.shape[2:]) * inside).unsqueeze(1)


def _inside(rows: Tensor, height: int, width: int) -> Tensor:
    """A mask (N, H, W) of the cells in the boxes of `rows` (N, T, 5), up to the first row with x = 0."""
    there = (rows[..., 1] != 0).cumprod(1).bool()
    sides = []
    for axis, cells in ((2, height), (1, width)):
        centre, size = rows[..., axis], rows[..., axis + 2]
        ends = [((centre + sign * size / 2) * cells + 0.5).trunc().clamp(0, cells) for sign in (-1, 1)]
        index = torch.arange(cells, device=rows.device)
        sides.append((index >= ends[0].unsqueeze(-1)) & (index < ends[1].unsqueeze(-1)))
    down, across = sides
    return (down.unsqueeze(3) & across.unsqueeze(2) & there.view(*there.shape, 1, 1)).any(1)
