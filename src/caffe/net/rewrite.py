"""Rewrites of a net's list of calls, made before it first runs as one piece.

A rewrite is a function from calls to calls that changes how values are computed and never which: a test holds each
equal to the net layer by layer. `REWRITES` lists them in the order of their use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from caffe.blob import Blob
from caffe.layers.base import Layer
from caffe.layers.normalization import BatchNorm

__all__ = ["REWRITES", "Call", "rewrite"]


@dataclass(frozen=True)
class Call:
    """One run of a layer, or of several as one: which values it reads and writes, by places in the list of values."""

    layer: Layer
    run: Callable[..., Any]
    reads: tuple[tuple[int, bool], ...]  # (place, whether to cut autograd's history there)
    writes: tuple[int, ...]
    kept: tuple[Blob, ...]  # what to use for tops that the layer leaves to the user
    backward: bool


Rewrite = Callable[[Sequence[Call], frozenset[int]], list[Call]]


def rewrite(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """The calls after all rewrites. Values at the places `wanted` must be there at the end."""
    for change in REWRITES:
        calls = change(calls, wanted)
    return list(calls)


def scale_with_batch_norm(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """BatchNorm followed by a Scale of its channels: one normalisation with weight and bias, one pass over the data."""
    readers = _readers(calls)
    norms = {call.writes[0]: call for call in calls if isinstance(call.layer, BatchNorm)}
    merged: dict[int, Call] = {}
    for call in calls:
        norm = norms.get(call.reads[0][0]) if call.reads else None
        if norm is None or call.reads[0][1] or not _scales_channels(call):
            continue
        if readers[norm.writes[0]] == 1 and norm.writes[0] not in wanted:
            run = partial(_normalize, norm.layer, call.layer)
            merged[id(call)] = replace(call, run=run, reads=norm.reads, backward=norm.backward or call.backward)
            merged[id(norm)] = norm
    return [merged.get(id(call), call) for call in calls if merged.get(id(call)) is not call]


def relu_in_place(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """ReLU over its input's memory, where whoever made the input needs it no more."""
    readers = _readers(calls)
    maker = {place: call for call in calls for place in call.writes}
    changed = []
    for call in calls:
        if call.layer.type == "ReLU" and not call.layer.opt.negative_slope and not call.reads[0][1]:
            place = call.reads[0][0]
            if maker[place].layer.type in _FORGETFUL and readers[place] == 1 and place not in wanted:
                call = replace(call, run=torch.relu_)
        changed.append(call)
    return changed


REWRITES: list[Rewrite] = [scale_with_batch_norm, relu_in_place]

_FORGETFUL = ("Convolution", "Deconvolution", "InnerProduct", "BatchNorm", "Scale")
"""Layers that make their top anew and whose gradient does not need it."""


def _readers(calls: Sequence[Call]) -> Counter[int]:
    """How often each value is read."""
    return Counter(place for call in calls for place, _ in call.reads)


def _scales_channels(call: Call) -> bool:
    layer: Any = call.layer
    return layer.type == "Scale" and len(call.reads) == 1 and layer.start == 1 and layer.weight.dim() == 1


def _normalize(norm: Any, scale: Any, x: Tensor) -> Tensor:
    return norm.normalize(x, scale.weight, scale.bias if scale.opt.bias_term else None)
