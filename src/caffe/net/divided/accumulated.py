"""InnerProduct layers whose backward adds to the weight gradient in blocks.

If several passes contribute to one gradient, autograd allocates a whole gradient for each pass and then adds it. For a
net that consists mostly of one layer, this needs a third more memory.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from caffe.layers.dense import InnerProduct
from caffe.layers.support.products import linear, product
from caffe.net.plan.rewrite import Call

__all__ = ["accumulate_products", "gradient_of"]

_PIECE = 1 << 18
"""Number of gradient values that are computed at a time."""


def accumulate_products(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """Rewrite the calls so that InnerProduct layers add to their gradients in place."""
    return [
        replace(call, run=functools.partial(_run, call.layer))
        if type(call.layer) is InnerProduct and not call.layer.opt.transpose
        else call
        for call in calls
    ]


def _run(layer: Any, x: Tensor) -> Tensor:
    flat = layer.rows(x)
    if flat.dim() != 2 or not torch.is_grad_enabled():
        return linear(flat, layer.weight, layer.bias)
    y: Tensor = _Product.apply(flat, layer.weight, layer.bias)
    return y


class _Product(torch.autograd.Function):
    """y = x W^T + bias. Backward adds to the gradient of W in blocks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x)
        ctx.weight = weight
        return product(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (x,), weight = ctx.saved_tensors, ctx.weight
        need_x, need_weight, need_bias = ctx.needs_input_grad
        dx = product(dy, weight.t()) if need_x else None
        if need_weight:
            _add_product(gradient_of(weight), dy, x)
        return dx, None, dy.sum(0) if need_bias else None


def gradient_of(parameter: Any) -> Tensor:
    """Return the gradient of a parameter, to which the caller adds. A new gradient is zero.

    The memory is kept from step to step. If it were freed, smaller tensors of the next step would be allocated in it,
    and the memory would become fragmented.
    """
    if parameter.grad is None:
        room = getattr(parameter, "gradient_room", None)
        parameter.gradient_room = torch.zeros_like(parameter, requires_grad=False) if room is None else room.zero_()
        parameter.grad = parameter.gradient_room
    grad: Tensor = parameter.grad
    return grad


def _add_product(grad: Tensor, dy: Tensor, x: Tensor) -> None:
    """Add dy^T x to a gradient (M, K), a block of rows at a time."""
    rows = max(1, _PIECE // max(1, grad.shape[1]))
    for start in range(0, len(grad), rows):
        part = grad[start : start + rows]
        part += product(dy[:, start : start + rows].t(), x.t())
