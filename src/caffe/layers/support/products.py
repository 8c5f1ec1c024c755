"""The matrix product of fully connected layers. On the CPU it uses oneDNN or torch's own library, the faster of both.

torch's own `F.linear` uses MKL for float32, which on non-Intel processors is half as fast as oneDNN for large products.
For small ones, oneDNN's preparation takes longer than the product. On Intel's processors oneDNN is faster only for a
few rows and large weights, and takes up to three times as long for products of transposed operands, as in backward.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe import torch_internals
from caffe.layers.base import is_exported
from caffe.layers.support import processor

__all__ = ["linear", "product"]

_ONEDNN = torch_internals.has_onednn()
_SMALL = 1 << 22
"""Products of at most this number of multiplications are formed by `F.linear`."""
_FEW_ROWS = 2
"""For this number of rows or fewer, `F.linear` reads the weights once and is faster whatever their size."""
_SOME_ROWS, _LARGE_WEIGHT = 64, 1 << 21
"""Up to this number of rows, and from this number of weights on, oneDNN is faster on Intel's processors too."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (..., K) times weight (M, K) transposed, plus bias (M): (..., M)."""
    if not _usable(x) or is_exported() or x.dim() < 2 or _default_is_faster(x, weight):
        return F.linear(x, weight, bias)
    if x.dim() == 2:
        y: Tensor = _Linear.apply(x, weight, bias)
        return y
    return _Linear.apply(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (N, K) times weight (M, K) transposed, plus bias (M): a tensor (N, M) without autograd's history."""
    with torch.no_grad():
        large = _usable(x) and weight.numel() and not _default_is_faster(x, weight)
        return _product(x, weight, bias) if large else F.linear(x, weight, bias)


def _default_is_faster(x: Tensor, weight: Tensor) -> bool:
    """Whether `F.linear` is faster. A compiled graph, which may be run with other shapes, does not ask."""
    if torch.compiler.is_compiling():
        return False
    rows = x.numel() // x.shape[-1]
    if rows <= _FEW_ROWS or x.numel() * len(weight) <= _SMALL:
        return True
    return processor.IS_INTEL and not (
        rows <= _SOME_ROWS and weight.numel() >= _LARGE_WEIGHT and weight.is_contiguous() and x.is_contiguous()
    )


def _usable(x: Tensor) -> bool:
    """Whether oneDNN can form a product of x."""
    return _ONEDNN and x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() > 0


class _Linear(torch.autograd.Function):
    """y = x W^T + bias by oneDNN, with x (N, K), W (M, K), bias (M). The gradients use oneDNN's products too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _opaque(x, weight, bias) if torch.compiler.is_compiling() else _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        dx = linear(dy, weight.t(), None) if need_x else None
        dw = linear(dy.t(), x.t(), None) if need_weight else None
        return dx, dw, dy.sum(0) if need_bias else None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch_internals.linear_pointwise(_packed(x), _packed(weight), bias, "none", [], "")


def _packed(x: Tensor) -> Tensor:
    """x, or a copy if neither its rows nor its columns are adjacent: oneDNN multiplies those a hundred times slower."""
    return x if x.is_contiguous() or x.t().is_contiguous() else x.contiguous()


_opaque = torch.library.custom_op(
    "cafetiere::linear", _product, mutates_args=(), schema="(Tensor x, Tensor weight, Tensor? bias) -> Tensor"
)
"""The same as a custom operator, since torch.compile supports oneDNN's operator with constant weights only."""


@_opaque.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(len(x), len(weight))
