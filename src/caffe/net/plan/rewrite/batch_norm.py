"""Rewrites of BatchNorm and the Scale that follows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from caffe.layers.dense import Scale
from caffe.layers.normalization import BatchNorm
from caffe.net.plan.rewrite.call import Call, readers

__all__ = ["coefficients", "normalization", "scale_with_batch_norm", "scales_channels"]


def scale_with_batch_norm(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """Merge BatchNorm and a following channel-wise Scale into one normalization, which passes over the data once."""
    read = readers(calls)
    norms = {call.writes[0]: call for call in calls if isinstance(call.layer, BatchNorm) and not call.layer.scaled}
    merged: dict[int, Call] = {}
    for call in calls:
        norm = norms.get(call.reads[0][0]) if call.reads else None
        if norm is None or call.reads[0][1] or not scales_channels(call):
            continue
        if read[norm.writes[0]] == 1 and norm.writes[0] not in wanted:
            run = partial(_normalize, norm.layer, call.layer)
            backward = norm.backward or call.backward
            merged[id(call)] = replace(call, run=run, reads=norm.reads, backward=backward, merged=(norm.layer,))
            merged[id(norm)] = norm
    return [merged.get(id(call), call) for call in calls if merged.get(id(call)) is not call]


def scales_channels(call: Call) -> bool:
    """Whether the call is a Scale by its own blob, with one number per channel."""
    layer: Any = call.layer
    return type(layer) is Scale and len(call.reads) == 1 and layer.start == 1 and layer.weight.dim() == 1


def normalization(call: Call) -> tuple[BatchNorm, Any] | None:
    """The BatchNorm of a call and the Scale merged with it, if any. None for other calls."""
    if isinstance(call.layer, BatchNorm) and call.run == call.layer.forward:
        return None if call.layer.scaled else (call.layer, None)
    return call.run.args if isinstance(call.run, partial) and call.run.func is _normalize else None


def coefficients(scale: Any) -> tuple[Tensor, Tensor | None]:
    """The blobs of a Scale."""
    return scale.weight, scale.bias if scale.opt.bias_term else None


def _normalize(norm: Any, scale: Any, x: Tensor) -> Tensor:
    return norm.normalize(x, *coefficients(scale))
