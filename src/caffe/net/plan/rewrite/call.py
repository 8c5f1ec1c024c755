"""A net as a list of calls, on which rewrites work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor

from caffe.blob import Blob
from caffe.layers.activation import ReLU
from caffe.layers.base import Layer

__all__ = ["Call", "Rewrite", "is_plain_relu", "readers", "tops_of"]


@dataclass(frozen=True)
class Call:
    """One run of a layer, or of several fused layers: the places of the values that it reads and writes."""

    layer: Layer
    run: Callable[..., Any]
    reads: tuple[tuple[int, bool], ...]  # (place, whether to detach the value from autograd)
    writes: tuple[int, ...]
    kept: tuple[Blob, ...]  # blobs to use for tops that the layer leaves to the user
    backward: bool
    frees: tuple[int, ...] = ()  # places whose values are not needed after this call
    merged: tuple[Layer, ...] = ()  # layers with effects that `run` includes besides `layer`

    def tops(self, made: Any, inputs: Mapping[str, Tensor] = MappingProxyType({})) -> tuple[Tensor, ...]:
        """The result of `run` as a tuple. Tops left to the user come from `inputs` by name, or from the blobs."""
        return tops_of(made, self.kept, inputs)


def tops_of(made: Any, kept: Sequence[Blob], inputs: Mapping[str, Tensor] = MappingProxyType({})) -> tuple[Tensor, ...]:
    """As Call.tops, for a call that keeps these blobs."""
    if isinstance(made, Tensor):
        return (made,)
    if made is None:
        made = (None,) * len(kept)
    if any(x is None for x in made):
        made = [_left(blob, inputs) if x is None else x for x, blob in zip(made, kept, strict=True)]
    return tuple(made)


def _left(blob: Blob, inputs: Mapping[str, Tensor]) -> Tensor:
    given = inputs.get(blob.name)
    return blob.read() if given is None else given


Rewrite = Callable[[Sequence[Call], frozenset[int]], list[Call]]
"""Takes calls and the places whose values must be available at the end; returns calls."""


def readers(calls: Sequence[Call]) -> Counter[int]:
    """The number of times that each value is read."""
    return Counter(place for call in calls for place, _ in call.reads)


def is_plain_relu(call: Call) -> bool:
    """Whether the call is a ReLU without negative slope that propagates gradients."""
    layer: Any = call.layer
    return type(layer) is ReLU and not layer.opt.negative_slope and not call.reads[0][1]
