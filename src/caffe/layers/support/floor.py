"""A lower limit that the gradient ignores, as in Caffe's losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from caffe.layers.support.exact import is_exact, tell

__all__ = ["floored"]


class _Floor(torch.autograd.Function):
    """max(x, least) with gradient 1 everywhere: Caffe's losses ignore the clamp in their gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, least: float) -> Tensor:
        return x.clamp(min=least)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def floored(x: Tensor, least: float) -> Tensor:
    """Apply `_Floor`. In a gradient check the gradient is exact, 0 where x is clamped, and the clamps are reported."""
    if not is_exact():
        return _Floor.apply(x, least)
    count = int((x < least).sum())
    if count:
        tell(f"{count} of {x.numel()} clamped")
    return x.clamp(min=least)
