"""Sharded weights: each process holds a slice of each blob, and a layer gathers the whole blob when it runs.

The whole blob exists only while its layer runs forward or backward. Backward sums the gradient over the processes, and
each process keeps its slice of the sum. An InnerProduct layer, which can contain most of the net's weights, never
gathers all of its weights: it gathers a block of rows at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from caffe.layers.base import Layer
from caffe.layers.dense import InnerProduct
from caffe.layers.support.products import product
from caffe.net.divided.accumulated import gradient_of
from caffe.net.engines import Eager
from caffe.net.plan.rewrite import Call, Rewrite
from caffe.net.plan.rewrite.dead import free_early
from caffe.net.plan.rewrite.inplace import relu_in_place, sum_in_place
from caffe.net.plan.rewrite.pooling import pool_before_relu
from caffe.parallel.exchange import Exchange

__all__ = ["sharded_engine"]

_PIECE = 1 << 18
"""Number of weights of an InnerProduct layer that a process gathers at a time."""


def sharded_engine(exchange: Exchange) -> Eager:
    """Create an engine for a net whose blobs are sharded over the processes of an exchange."""
    engine = Eager()
    engine.rewrites = [_gathering(exchange), pool_before_relu, sum_in_place, relu_in_place, free_early]
    return engine


def _gathering(exchange: Exchange) -> Rewrite:
    """Create a rewrite that makes layers gather their blobs."""

    def rewrite(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
        return [replace(call, run=_run(call, exchange)) if _sharded(call.layer) else call for call in calls]

    return rewrite


def _sharded(layer: Layer) -> list[str]:
    """Return the names of the layer's sharded blobs."""
    return [name for name, x in layer.named_parameters(recurse=False) if hasattr(x, "whole_shape")]


def _run(call: Call, exchange: Exchange) -> Callable[..., Any]:
    layer: Any = call.layer
    if type(layer) is InnerProduct and not layer.opt.transpose and "weight" in _sharded(layer):
        return functools.partial(_product, layer, exchange)
    return functools.partial(_gathered_run, layer, exchange)


# -- any layer -------------------------------------------------------------------------------------------------------


def _gathered_run(layer: Layer, exchange: Exchange, *bottoms: Tensor) -> Any:
    """Run the layer on its whole blobs. Autograd saves only the slices, and backward gathers them again."""
    with _whole_blobs(layer, exchange) as blobs:
        places = {whole.untyped_storage().data_ptr(): part for part, whole in blobs}

        def pack(x: Tensor) -> Any:
            part = places.get(x.untyped_storage().data_ptr())
            return x if part is None else (part, x.shape, x.stride(), x.storage_offset())

        def unpack(kept: Any) -> Tensor:
            if isinstance(kept, Tensor):
                return kept
            part, shape, stride, start = kept
            return _gathered(part, exchange).as_strided(shape, stride, start)

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            return layer.forward(*bottoms)


@contextmanager
def _whole_blobs(layer: Layer, exchange: Exchange) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Give the layer whole blobs inside the block, connected to the slices by autograd. Yields slices and blobs."""
    blobs = {name: getattr(layer, name) for name in _sharded(layer)}
    wholes = {name: _Whole.apply(part, exchange) for name, part in blobs.items()}
    vars(layer).update(wholes)  # attribute access finds these before the parameters, which do not change
    try:
        yield [(blobs[name], wholes[name]) for name in blobs]
    finally:
        for name in wholes:
            del vars(layer)[name]


class _Whole(torch.autograd.Function):
    """Gathers a whole blob. The gradient of a slice is that slice of the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, part: Any, exchange: Exchange) -> Tensor:
        ctx.part, ctx.exchange = part, exchange
        return _gathered(part, exchange)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return _scattered(dy, ctx.part, ctx.exchange), None


def _gathered(part: Any, exchange: Exchange) -> Tensor:
    """Return the whole blob in its original memory layout."""
    shape, last = part.whole_shape, part.whole_order is torch.channels_last
    rows = -(-(shape or (1,))[0] // exchange.size)
    own = part.detach().reshape(part.shape or (1,))
    own = _padded(own.movedim(1, -1) if last else own, rows)
    whole = exchange.gather(own).flatten(0, 1)[: (shape or (1,))[0]]
    return whole.movedim(-1, 1) if last else whole.view(shape)


def _scattered(dy: Tensor, part: Any, exchange: Exchange) -> Tensor:
    """Return this process's slice of the summed gradient of a whole blob."""
    shape, last = part.whole_shape, part.whole_order is torch.channels_last
    dy = dy.reshape(shape or (1,))
    rows = -(-dy.shape[0] // exchange.size)
    whole = _padded(dy.movedim(1, -1) if last else dy, rows * exchange.size)
    own = exchange.scatter_sum(whole.unflatten(0, (exchange.size, rows)))[: (part.shape or (1,))[0]]
    return own.movedim(-1, 1) if last else own.view(part.shape)


def _padded(x: Tensor, rows: int) -> Tensor:
    """Return x in C order, padded with rows of zeros to `rows` rows."""
    if x.shape[0] == rows:
        return x.contiguous()
    made = x.new_zeros((rows, *x.shape[1:]))
    made[: x.shape[0]] = x
    return made


# -- InnerProduct ----------------------------------------------------------------------------------------------------


def _product(layer: Any, exchange: Exchange, x: Tensor) -> Tensor:
    """Run an InnerProduct layer, a block of rows of the weights at a time."""
    flat = layer.rows(x)
    bias = layer.bias
    if bias is not None and hasattr(bias, "whole_shape"):
        bias = _Whole.apply(bias, exchange)
    y = _Product.apply(flat.reshape(-1, flat.shape[-1]), layer.weight, exchange)
    y = y.view(*flat.shape[:-1], y.shape[-1])
    return y if bias is None else y + bias


class _Product(torch.autograd.Function):
    """Computes y = x W^T for x (N, K) and W (M, K). This process holds some rows of W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: Any, exchange: Exchange) -> Tensor:
        ctx.save_for_backward(x)
        ctx.part, ctx.exchange = part, exchange
        y = x.new_empty(len(x), part.whole_shape[0])
        for own, places in _pieces(part, exchange):
            weights = exchange.gather(_piece(part, own))
            for rank, rows in _filled(places):
                y[:, rows] = product(x, weights[rank, : rows.stop - rows.start])
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, None, None]:
        (x,), part, exchange = ctx.saved_tensors, ctx.part, ctx.exchange
        dx = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        for own, places in _pieces(part, exchange):
            if dx is not None:
                weights = exchange.gather(_piece(part, own))
                for rank, rows in _filled(places):
                    dx += product(dy[:, rows], weights[rank, : rows.stop - rows.start].t())
            if ctx.needs_input_grad[1]:
                sums = dy.new_zeros(exchange.size, own.stop - own.start, x.shape[1])
                for rank, rows in _filled(places):
                    sums[rank, : rows.stop - rows.start] = product(dy[:, rows].t(), x.t())
                added, held = exchange.scatter_sum(sums), gradient_of(part)[own]
                held += added[: len(held)]
        return dx, None, None


def _pieces(part: Any, exchange: Exchange) -> Iterator[tuple[slice, list[slice]]]:
    """Yield the blocks: a range of rows of each process's slice, and the rows of the whole blob at which they lie."""
    total, width = part.whole_shape
    step = -(-total // exchange.size)
    count = max(1, min(step, _PIECE // (width * exchange.size)))
    for start in range(0, step, count):
        stop = min(start + count, step)
        bounds = [(rank * step, min(total, (rank + 1) * step)) for rank in range(exchange.size)]
        places = [slice(min(first + start, end), min(first + stop, end)) for first, end in bounds]
        yield slice(start, stop), [rows if rows.stop > rows.start else slice(0, 0) for rows in places]


def _filled(places: Sequence[slice]) -> Iterator[tuple[int, slice]]:
    """Yield the rows of each process that has rows in a block."""
    return ((rank, rows) for rank, rows in enumerate(places) if rows.stop > rows.start)


def _piece(part: Tensor, own: slice) -> Tensor:
    return _padded(part.detach()[own], own.stop - own.start)
