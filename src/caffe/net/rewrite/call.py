"""A net as a list of calls: what rewrites read and change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from caffe.blob import Blob
from caffe.layers.base import Layer

__all__ = ["Call", "Rewrite", "is_plain_relu", "readers"]


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


Rewrite = Callable[[Sequence[Call], frozenset[int]], list[Call]]
"""From calls, and the places whose values must be there at the end, to calls."""


def readers(calls: Sequence[Call]) -> Counter[int]:
    """How often each value is read."""
    return Counter(place for call in calls for place, _ in call.reads)


def is_plain_relu(call: Call) -> bool:
    """Whether it is a ReLU without slope that passes gradients on."""
    layer: Any = call.layer
    return layer.type == "ReLU" and not layer.opt.negative_slope and not call.reads[0][1]
