"""Determines which Caffe a net or solver was written for, by names that only one fork has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from caffe.errors import NetError
from caffe.layers import layer_class
from caffe.proto import caffe_pb2, v0
from caffe.proto.forks import LAYERS
from caffe.proto.forks.effects import FIRST
from caffe.proto.forks.fields import EFFECT, ENGINES, OPTIONS, REFUSED, WITHOUT_EFFECT
from caffe.proto.printing import repeated_fields

__all__ = ["age", "origins"]

_OURS = 20000
_OWN = "Cafetière"
_REWRITTEN = {"AutoCrop": "RCF"}
"""Layer types that upgrading a net changes to others."""
_AMBIGUOUS = "each in its own meaning"


def origins(message: Any) -> list[tuple[str, str, list[str]]]:
    """Return the forks whose fields or layer types a net or solver has, most certain first.

    Each comes with its certainty and the names found. "sure" requires three names, or a field in messages that only one
    fork has. Names that several forks have count as possible.
    """
    found: dict[str, dict[str, None]] = {}
    for fork, name in (*_fields(message), *_types(message)):
        found.setdefault(fork, {})[name] = None
    rows = [(fork, _certainty(fork, names), list(names)) for fork, names in found.items()]
    return sorted(rows, key=lambda row: (_LEVELS.index(row[1]), -len(row[2])))


_LEVELS = ("sure", "likely", "possible")


def age(net: Any) -> str:
    """Return the format of a net's definition, and when Caffe used it."""
    if v0.is_v0(net):
        return "V0 (2013: options inside `layers { layer { } }`)"
    if net.layers:
        return "V1 (2014: `layers` with types in capitals)"
    if net.input:
        return "current layers, with `input` fields (2014 to 2016)"
    return "today's"


def _certainty(fork: str, names: dict[str, None]) -> str:
    if _AMBIGUOUS in fork:
        return "possible"
    if len(names) > 2 or fork == _OWN:
        return "sure"
    return "likely" if len(names) == 2 else "possible"


def _fields(message: Any) -> Iterator[tuple[str, str]]:
    """Yield fork and name of each field that BVLC's messages do not have."""
    owner, repeated = message.DESCRIPTOR.name, repeated_fields(message.DESCRIPTOR)
    for each, value in message.ListFields():
        if each.is_extension or each.name == "blobs":
            continue
        if each.number >= FIRST:
            fork = _fork_of(owner, each.name)
            if fork:
                yield fork, each.name
            continue
        if each.number >= _OURS:
            yield _OWN, each.name
        elif each.name == "engine" and each.enum_type is not None:
            engine = each.enum_type.values_by_number[value].name
            if engine in ENGINES:
                yield ENGINES[engine], f"engine: {engine}"
        elif each.message_type is not None:
            for part in value if each.name in repeated else (value,):
                yield from _fields(part)


def _fork_of(owner: str, name: str) -> str:
    for table in (EFFECT, WITHOUT_EFFECT):
        if name in table.get(owner, {}):
            return table[owner][name]
    refused = REFUSED.get(owner, {})
    return refused[name][0] if name in refused else OPTIONS.get(name, "")


def _types(message: Any) -> Iterator[tuple[str, str]]:
    """Yield fork and name of each layer type that has options of a fork, or exists only in a fork."""
    if not isinstance(message, caffe_pb2.NetParameter):
        return
    for layer in message.layer:
        if layer.type in LAYERS or layer.type in _REWRITTEN:
            yield _REWRITTEN.get(layer.type) or LAYERS[layer.type][0], layer.type
            continue
        try:
            options = layer_class(layer.type).options
        except NetError:
            continue
        if options in OPTIONS:
            yield OPTIONS[options], layer.type
