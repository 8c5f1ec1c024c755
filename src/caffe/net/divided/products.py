"""Tensor parallelism: each process computes some outputs of an InnerProduct layer for the records of all processes.

The records of all processes are gathered before the product, and the outputs are exchanged after it. The bottom and
top of the layer therefore contain the process's own batch, and the other layers remain data parallel (Krizhevsky, "One
weird trick for parallelizing convolutional neural networks", arXiv:1404.5997). If only a SoftmaxWithLoss layer reads
the outputs, they are not exchanged; the loss is computed from the outputs of each process.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from caffe.layers.dense import InnerProduct
from caffe.layers.loss import FLT_MIN
from caffe.layers.softmax import SoftmaxWithLoss
from caffe.layers.support.labels import class_labels
from caffe.layers.support.products import linear
from caffe.net.engines import Eager
from caffe.net.plan.rewrite import REWRITES, Call, Rewrite
from caffe.net.plan.rewrite.call import readers
from caffe.parallel.exchange import Exchange

__all__ = ["product_engine"]


def product_engine(exchange: Exchange) -> Eager:
    """Create an engine for a net whose InnerProduct layers are divided over the processes of an exchange."""
    engine = Eager()
    engine.rewrites = [_dividing(exchange), *REWRITES]
    return engine


def _dividing(exchange: Exchange) -> Rewrite:
    """Create a rewrite that replaces the divided products and the losses that follow them."""

    def rewrite(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
        losses = _split_losses(calls, wanted)
        makers = {loss.reads[0][0] for loss in losses}
        classes = {call.writes[0]: call.layer.outputs for call in calls if isinstance(call.layer, InnerProduct)}
        changed = []
        for call in calls:
            if _is_divided(call):
                run = _part_of_outputs if call.writes[0] in makers else _outputs
                call = replace(call, run=functools.partial(run, call.layer, exchange))
            elif any(call is loss for loss in losses):
                call = replace(call, run=functools.partial(_loss, call.layer, classes[call.reads[0][0]], exchange))
            changed.append(call)
        return changed

    return rewrite


def _is_divided(call: Call) -> bool:
    return type(call.layer) is InnerProduct and hasattr(call.layer.weight, "whole_shape")


def _split_losses(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """Return the losses that are the only readers of the outputs of a divided product, with one output per class."""
    read = readers(calls)
    makers = {place: call for call in calls for place in call.writes}
    found = []
    for call in calls:
        layer: Any = call.layer
        if type(layer) is not SoftmaxWithLoss or layer.top_count > 1 or layer.class_weights or not call.backward:
            continue
        place, cut = call.reads[0]
        maker = makers[place]
        rows = _is_divided(maker) and maker.kept[0].shape
        if rows and len(rows) == 2 and layer.opt.axis in (1, -1) and not cut and place not in wanted:
            found += [call] if read[place] == 1 else []
    return found


# -- products --------------------------------------------------------------------------------------------------------


def _part_of_outputs(layer: Any, exchange: Exchange, x: Tensor) -> Tensor:
    """Return this process's outputs for the records of all processes, (size N, own outputs)."""
    flat = layer.rows(x)
    rows = _Gathered.apply(flat.reshape(-1, flat.shape[-1]), exchange)
    weight = layer.weight.t() if layer.opt.transpose else layer.weight
    return linear(rows, weight, layer.bias) if len(weight) else F.linear(rows, weight, layer.bias)


def _outputs(layer: Any, exchange: Exchange, x: Tensor) -> Tensor:
    """Return all outputs for the records of this process."""
    y = _Swapped.apply(_part_of_outputs(layer, exchange, x), layer.outputs, exchange)
    return y.view(*x.shape[: layer.start], layer.outputs)


class _Gathered(torch.autograd.Function):
    """Gathers the rows of all processes: (N, K) to (size N, K)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, exchange: Exchange) -> Tensor:
        ctx.exchange = exchange
        return exchange.gather(x).flatten(0, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return ctx.exchange.scatter_sum(dy.unflatten(0, (ctx.exchange.size, -1))), None


class _Swapped(torch.autograd.Function):
    """Exchanges outputs: some outputs of all rows, (size N, part of M), become all outputs of the own rows, (N, M)."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, outputs: int, exchange: Exchange) -> Tensor:
        ctx.exchange, ctx.own = exchange, y.shape[1]
        step = -(-outputs // exchange.size)
        sent = F.pad(y, (0, step - y.shape[1])).unflatten(0, (exchange.size, -1))
        made = y.new_empty(sent.shape[1], outputs)  # not a view, so that a later layer can overwrite it in place
        for part, place in zip(exchange.swap(sent), made.split(step, 1), strict=False):
            place.copy_(part[:, : place.shape[1]])
        return made

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        size = ctx.exchange.size
        step = -(-dy.shape[1] // size)
        sent = F.pad(dy, (0, size * step - dy.shape[1])).unflatten(1, (size, step)).transpose(0, 1)
        return ctx.exchange.swap(sent).flatten(0, 1)[:, : ctx.own], None, None


# -- softmax loss ----------------------------------------------------------------------------------------------------


def _loss(layer: Any, classes: int, exchange: Exchange, scores: Tensor, label: Tensor) -> Tensor:
    """Return the loss of this process's records, from its classes' scores for the records of all processes."""
    index = class_labels(layer, label.reshape(-1, 1), classes, layer.ignore)
    valid = None if layer.ignore is None else index != layer.ignore
    items = _Losses.apply(scores, index.reshape(-1), valid, classes, exchange)
    average: Tensor = layer.average(items.sum(), valid, len(items), 1)
    return average


class _Losses(torch.autograd.Function):
    """Computes the cross entropies (N) of the own records from the scores (size N, part of M) and all labels.

    As in SoftmaxWithLoss, the gradient, (softmax - onehot) times the gradient of the item, ignores the clamp at
    -log FLT_MIN.
    """

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, label: Tensor, valid: Tensor | None, classes: int, exchange: Exchange
    ) -> Tensor:
        count, own = len(label), scores.shape[1]
        kept = torch.ones_like(label, dtype=torch.bool) if valid is None else valid.reshape(-1)
        labels, counts = (exchange.gather(part.to(torch.int64)).flatten() for part in (label, kept))
        largest = scores.new_full((len(scores),), -math.inf) if not own else scores.amax(1)
        exchange.largest(largest)
        shifted = scores - largest[:, None]
        first = exchange.rank * -(-classes // exchange.size)
        place = labels - first
        here = (place >= 0) & (place < own) & (counts > 0)
        picked = shifted.new_zeros(len(scores))
        rows = here.nonzero()[:, 0]
        picked[rows] = shifted[rows, place[rows]]
        sums = torch.stack([shifted.exp().sum(1), picked])
        exchange.sum(sums)
        log = sums[0].log()
        losses = (log - sums[1]).clamp(max=-math.log(FLT_MIN)) * counts
        ctx.save_for_backward(shifted - log[:, None], rows, place, counts)
        ctx.exchange = exchange
        return losses[exchange.rank * count : (exchange.rank + 1) * count].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        logs, rows, place, counts = ctx.saved_tensors
        factors = ctx.exchange.gather(dy).flatten() * counts
        dx = logs.exp()
        dx[rows, place[rows]] -= 1
        return dx.mul_(factors[:, None]), None, None, None, None
