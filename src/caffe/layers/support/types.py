"""Layer types by name."""

from __future__ import annotations

from typing import Any

from caffe.errors import NetError
from caffe.proto.forks import foreign_layer
from caffe.proto.v1 import V1_TYPES
from caffe.registry import LAYERS

__all__ = ["is_a", "layer_class", "layer_types"]

_OTHERS = ("CELU", "GELU")
"""Operations that no Caffe has, and whose names look like misspellings of layer types."""


def layer_class(type_name: str) -> type[Any]:
    """The class registered for a layer type. Raises a `NetError` with the nearest known name if there is none."""
    if type_name not in LAYERS and (foreign := foreign_layer(type_name)):
        raise NetError(f'layer type "{type_name}"{foreign} {LAYERS.known()}')
    modern = V1_TYPES.get(type_name.upper(), "")  # SOFTMAX_LOSS
    if type_name in _OTHERS:
        raise NetError(f'unknown layer type "{type_name}" {LAYERS.known()}')
    return LAYERS.find(type_name, f'; did you mean "{modern}"?' if modern in LAYERS else "")


def is_a(type_name: str, *kinds: type[Any]) -> bool:
    """Whether the class of a layer type is one of `kinds` or a subclass of one. False for an unknown type."""
    cls = LAYERS.items.get(type_name)
    return cls is not None and issubclass(cls, kinds)


def layer_types() -> list[str]:
    """All registered type names, sorted."""
    return LAYERS.names()
