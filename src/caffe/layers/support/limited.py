"""Values limited to a range, with a fast gradient."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

from caffe.layers.support.values import is_exported

__all__ = ["limited", "neighbours"]


def limited(x: Tensor, low: float, high: float) -> Tensor:
    """max(low, min(x, high)). Clamped values get no gradient; values equal to a limit do.

    torch's gradient of `clamp` takes five passes over memory, this one takes one.
    """
    if not (torch.is_grad_enabled() and x.requires_grad) or is_exported() or torch.compiler.is_compiling():
        return x.clamp(low, high)
    made: Tensor = _Limited.apply(x, low, high)
    return made


class _Limited(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.range = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        below, above = neighbours(x.dtype, *ctx.range)
        return torch.ops.aten.hardtanh_backward(grads[0], x, below, above), None, None


@functools.cache
def neighbours(dtype: torch.dtype, low: float, high: float) -> tuple[float, float]:
    """The next numbers of this type below `low` and above `high`: the gradient of hardtanh leaves out its limits.

    Not a denormal number, which backward treats as zero.
    """
    least = torch.finfo(dtype).tiny
    found = []
    for limit, end in ((low, -math.inf), (high, math.inf)):
        near = torch.tensor(limit, dtype=dtype)
        following = torch.nextafter(near, torch.tensor(end, dtype=dtype)).item()
        found.append(math.copysign(least, end) if abs(following) < least else following)
    return found[0], found[1]
