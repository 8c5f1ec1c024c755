"""Nets as lists of plain dictionaries, and their text as prototxt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ALIASES = ("Flatten", "Reshape")  # and Split, a Concat of one bottom, a Slice with one top


@dataclass
class Node:
    """One layer: `options` are the fields of its LayerParameter beside name, type, bottom, top and param."""

    name: str
    type: str
    bottoms: list[str]
    tops: list[str]
    options: dict[str, Any] = field(default_factory=dict)
    params: list[dict[str, Any]] = field(default_factory=list)  # ParamSpecs: name, lr_mult

    @property
    def in_place(self) -> bool:
        return bool(self.bottoms) and self.bottoms[:1] == self.tops[:1]

    @property
    def aliases(self) -> bool:
        """Whether the tops are the bottom's memory."""
        one = len(self.bottoms) == len(self.tops) == 1
        return self.type in ("Split", *ALIASES) or (self.type in ("Concat", "Slice") and one)


@dataclass
class Graph:
    """A net before automatic splits. `kinds` gives the kind of a blob's values: "value" or "label <classes>"."""

    nodes: list[Node]
    force_backward: bool = False
    kinds: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """The net as prototxt."""
        lines = ['name: "net"', *(["force_backward: true"] if self.force_backward else [])]
        return "\n".join([*lines, *map(_layer_text, self.nodes)]) + "\n"

    @property
    def has_loss(self) -> bool:
        return any("Loss" in node.type for node in self.nodes)


def with_splits(nodes: list[Node]) -> list[Node]:
    """Return the nodes that the net runs, with a Split after each top that several layers read."""
    sources: dict[tuple[int, int], tuple[int, int]] = {}
    last: dict[str, tuple[int, int]] = {}
    for i, node in enumerate(nodes):
        sources.update({(i, j): last[bottom] for j, bottom in enumerate(node.bottoms)})
        last.update({top: (i, j) for j, top in enumerate(node.tops)})
    readers = list(sources.values())
    given: dict[tuple[int, int], int] = {}
    result = []
    for i, node in enumerate(nodes):
        bottoms = []
        for j, bottom in enumerate(node.bottoms):
            source = sources[i, j]
            if readers.count(source) > 1:
                number = given[source] = given.get(source, -1) + 1
                bottom = _split_name(bottom, nodes[source[0]].name, source[1]) + f"_{number}"
            bottoms.append(bottom)
        result.append(Node(node.name, node.type, bottoms, node.tops, node.options, node.params))
        for j, top in enumerate(node.tops):
            count = readers.count((i, j))
            if count > 1:
                name = _split_name(top, node.name, j)
                result.append(Node(name, "Split", [top], [f"{name}_{k}" for k in range(count)]))
    return result


def _split_name(blob: str, layer: str, top: int) -> str:
    return f"{blob}_{layer}_{top}_split"


def _layer_text(node: Node) -> str:
    parts = [f'name: "{node.name}" type: "{node.type}"']
    parts += [f'bottom: "{name}"' for name in node.bottoms] + [f'top: "{name}"' for name in node.tops]
    parts += [_field("param", spec) for spec in node.params]
    return f"layer {{ {' '.join(parts)} {_fields(node.options)} }}"


def _fields(options: dict[str, Any]) -> str:
    parts = []
    for key, value in options.items():
        parts += [_field(key, each) for each in (value if isinstance(value, (list, tuple)) else [value])]
    return " ".join(parts)


def _field(key: str, value: Any) -> str:
    if isinstance(value, dict):
        return f"{key} {{ {_fields(value)} }}"
    if isinstance(value, bool):
        return f"{key}: {str(value).lower()}"
    if isinstance(value, str) and not value.isupper():
        return f'{key}: "{value}"'
    return f"{key}: {value}"
