"""Anchors, and the base of the layers that use them."""

from __future__ import annotations

import ast
from collections.abc import Sequence

import numpy as np
import torch

import caffe

SIDES = (14, 20, 28)


def anchors(height: int, width: int, stride: int) -> torch.Tensor:
    """Return the anchors (H W A, 4) of a map: squares of each side around the centre of each cell."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centre = (torch.stack([x, y, x, y], -1).reshape(-1, 1, 4) + 0.5) * stride
    half = torch.tensor([[-side / 2, -side / 2, side / 2 - 1, side / 2 - 1] for side in SIDES])
    return (centre + half).reshape(-1, 4)


def by_cell(blob: np.ndarray, each: int) -> torch.Tensor:
    """Return a blob (1, A each, H, W) as rows (H W A, each)."""
    return torch.from_numpy(blob[0]).unflatten(0, (-1, each)).permute(2, 3, 0, 1).reshape(-1, each)


def as_map(rows: torch.Tensor, height: int, width: int) -> np.ndarray:
    """Return rows (H W A, each) as a blob (1, A each, H, W), the inverse of `by_cell`."""
    cells = rows.reshape(height, width, len(SIDES), -1).permute(2, 3, 0, 1)
    return np.ascontiguousarray(cells.flatten(0, 1).unsqueeze(0).numpy())


class Quiet(caffe.Layer):
    """A layer without a gradient. `self.given` is its param_str."""

    def setup(self, bottom: Sequence[caffe.Blob], top: Sequence[caffe.Blob]) -> None:
        self.given = ast.literal_eval("{" + self.param_str_ + "}")
        self.random = np.random.default_rng(2)
        self.shape(bottom, top)

    def shape(self, bottom: Sequence[caffe.Blob], top: Sequence[caffe.Blob]) -> None:
        """Reshape the tops to the shapes that they have before the first run."""
        raise NotImplementedError

    def reshape(self, bottom: Sequence[caffe.Blob], top: Sequence[caffe.Blob]) -> None:
        """The tops get their shapes in forward."""

    def backward(self, top: Sequence[caffe.Blob], propagate_down: Sequence[bool], bottom: Sequence[caffe.Blob]) -> None:
        """There is no gradient."""

    def sample(self, wanted: torch.Tensor, count: int) -> torch.Tensor:
        """Return at most `count` indices, drawn at random, at which the mask `wanted` is true."""
        places = wanted.nonzero().flatten().numpy()
        return torch.from_numpy(self.random.permutation(places)[:count])

    @staticmethod
    def fill(top: caffe.Blob, values: np.ndarray) -> None:
        """Reshape a top and set its values."""
        top.reshape(*values.shape)
        top.data[...] = values
