"""A net as a list of calls: what rewrites read and change."""

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
    """One run of a layer, or of several as one: which values it reads and writes, by places in the list of values."""

    layer: Layer
    run: Callable[..., Any]
    reads: tuple[tuple[int, bool], ...]  # (place, whether to cut autograd's history there)
    writes: tuple[int, ...]
    kept: tuple[Blob, ...]  # what to use for tops that the layer leaves to the user
    backward: bool
    frees: tuple[int, ...] = ()  # places whose values nobody needs after it

    def tops(self, made: Any, inputs: Mapping[str, Tensor] = MappingProxyType({})) -> tuple[Tensor, ...]:
        """What `run` made, as a tuple; for what it left to the user, the `inputs` by name or else the blobs' values."""
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
"""From calls, and the places whose values must be there at the end, to calls."""


def readers(calls: Sequence[Call]) -> Counter[int]:
    """How often each value is read."""
    return Counter(place for call in calls for place, _ in call.reads)


def is_plain_relu(call: Call) -> bool:
    """Whether it is a ReLU without slope that passes gradients on."""
    layer: Any = call.layer
    return type(layer) is ReLU and not layer.opt.negative_slope and not call.reads[0][1]
