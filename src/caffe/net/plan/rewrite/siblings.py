"""Rewrites of parallel convolutions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from caffe.layers.convolution import convolution_gradients, is_convolution
from caffe.net.plan.rewrite.call import Call, is_plain_relu, readers

__all__ = ["sibling_convolutions"]


def sibling_convolutions(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """Merge 1 x 1 convolutions (with ReLU) that read the same blob: it is read once and gets one gradient."""
    read = readers(calls)
    relus = {call.reads[0][0]: call for call in calls if is_plain_relu(call)}
    families: dict[Any, list[Call]] = defaultdict(list)
    for call in calls:
        if _is_pointwise(call):
            place = call.writes[0]
            if place in relus and read[place] == 1 and place not in wanted:
                families[call.reads, call.layer.bias is None].append(call)
    merged: dict[int, Call] = {}
    for members in (members for members in families.values() if len(members) > 1):
        layers = [call.layer for call in members]
        ends = [relus[call.writes[0]] for call in members]
        writes = tuple(end.writes[0] for end in ends)
        kept = tuple(blob for end in ends for blob in end.kept)
        backward = any(call.backward for call in (*members, *ends))
        run = partial(_together, layers)
        one = Call(ends[0].layer, run, members[0].reads, writes, kept, backward)
        merged.update((id(call), one) for call in (*members, *ends))
    return list(dict.fromkeys(merged.get(id(call), call) for call in calls))


def _is_pointwise(call: Call) -> bool:
    layer: Any = call.layer
    if not is_convolution(layer) or len(call.reads) != 1 or layer.channel != 1 or layer.group != 1:
        return False
    slide = layer.slide
    return slide.kernel == (1, 1) and slide.stride == (1, 1) and slide.pad == (0, 0)


def _together(layers: Sequence[Any], x: Tensor) -> tuple[Tensor, ...]:
    weight = torch.cat([layer.weight for layer in layers])
    bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
    return _Together.apply(x, weight, bias, [len(layer.weight) for layer in layers])


class _Together(torch.autograd.Function):
    """A 1 x 1 convolution and a ReLU, sliced into tops. Backward applies the ReLU while it joins their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, sizes: list[int]) -> tuple[Tensor, ...]:
        y = torch.relu_(torch.conv2d(x, weight, bias))
        ctx.save_for_backward(x, weight, y)
        ctx.sizes = sizes
        return y.split(sizes, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, y = ctx.saved_tensors
        dy = torch.empty_like(y)
        for dy_i, y_i, grad in zip(dy.split(ctx.sizes, 1), y.split(ctx.sizes, 1), grads, strict=True):
            torch.ops.aten.threshold_backward(grad, y_i, 0, grad_input=dy_i)
        options = (1, 1), (0, 0), (1, 1), False, (0, 0), 1
        return *convolution_gradients(dy, x, weight, options, ctx.needs_input_grad[:3]), None
