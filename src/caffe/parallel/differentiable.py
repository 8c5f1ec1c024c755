"""A differentiable sum over processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from caffe.parallel.group import Group

__all__ = ["summed"]


def summed(x: Tensor, group: Group) -> Tensor:
    """Sum the processes' tensors, in the shape of x. The gradient is the sum of the processes' gradients."""
    return _Summed.apply(x, group)


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return _total(x, group)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return _total(dy, ctx.group), None


def _total(x: Tensor, group: Group) -> Tensor:
    total = x.detach().clone(memory_format=torch.contiguous_format)
    group.sum(total)
    return total
