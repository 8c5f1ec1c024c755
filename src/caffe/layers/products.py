"""The matrix product of fully connected layers, on the CPU by oneDNN.

torch's own `F.linear` takes MKL for float32, which on processors that are not Intel's runs at half of what oneDNN does.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["linear"]

_ONEDNN = torch.backends.mkldnn.is_available()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (..., K) times weight (M, K) transposed, plus bias (M): (..., M)."""
    if not _ONEDNN or x.device.type != "cpu" or x.dtype != torch.float32 or x.dim() < 2 or not x.numel():
        return F.linear(x, weight, bias)
    return _Linear.apply(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])


class _Linear(torch.autograd.Function):
    """y = x W^T + bias by oneDNN, with x (N, K), W (M, K), bias (M); its gradients are products of the same kind."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        dx = _Linear.apply(dy, weight.t(), None) if need_x else None
        dw = _Linear.apply(dy.t(), x.t(), None) if need_weight else None
        return dx, dw, dy.sum(0) if need_bias else None
