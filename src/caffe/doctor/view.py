"""The layers of a net in one phase, as written: which layer produces a blob, and which layers read it."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from caffe.layers.support.types import is_a
from caffe.net.graph.rules import filter_net
from caffe.proto import caffe_pb2
from caffe.registry import LAYERS

__all__ = ["Node", "View"]


@dataclass(frozen=True)
class Node:
    """A layer: its message, its index among the layers of all phases, and its index among those of this phase."""

    index: int
    number: int
    spec: Any

    @property
    def name(self) -> str:
        return str(self.spec.name)

    @property
    def type(self) -> str:
        return str(self.spec.type)

    @property
    def kind(self) -> Any:
        """The class of the layer."""
        return LAYERS.find(self.type)

    def is_a(self, *kinds: builtins.type[Any]) -> bool:
        """Whether the layer's class is one of `kinds` or a subclass of one."""
        return is_a(self.type, *kinds)

    @property
    def learned(self) -> bool:
        """Whether the layer learns weights that a `weight_filler` fills."""
        return bool(self.kind.fills_weights)

    @property
    def options(self) -> str:
        """The field of the layer's message with its options."""
        return str(self.kind.options)

    @property
    def in_place(self) -> bool:
        return bool(set(self.spec.top) & set(self.spec.bottom))


class View:
    """The layers of one phase, in order."""

    def __init__(self, net: Any, phase: int, state: Any) -> None:
        whole = caffe_pb2.NetParameter()
        whole.CopyFrom(net)
        own = caffe_pb2.NetState()
        own.phase = phase  # type: ignore[assignment]
        own.MergeFrom(net.state)
        own.MergeFrom(state)
        whole.state.CopyFrom(own)
        kept, indices = filter_net(whole)
        self.nodes = [
            Node(index, number, spec) for number, (index, spec) in enumerate(zip(indices, kept.layer, strict=True))
        ]

    def named(self, name: str) -> Node | None:
        """Return the layer with that name."""
        return next((node for node in self.nodes if node.name == name), None)

    def source(self, blob: str) -> Node:
        """Return the first layer with that top, which must exist."""
        return next(node for node in self.nodes if blob in node.spec.top)

    def maker(self, node: Node, bottom: str) -> Node | None:
        """Return the layer whose top a layer reads under that name, counting in-place layers."""
        before = self.nodes[: node.number]
        return next((other for other in reversed(before) if bottom in other.spec.top), None)

    def readers(self, node: Node) -> list[Node]:
        """Return the layers that read a top of `node` before an in-place layer changes it."""
        found, tops = [], set(node.spec.top)
        for other in self.nodes[node.number + 1 :]:
            if tops & set(other.spec.bottom):
                found.append(other)
            tops -= set(other.spec.top)
        return found

    def before(self, node: Node) -> Iterator[Node]:
        """Yield the layers that a layer depends on, nearest first, each once."""
        seen, queue = {node.number}, [node]
        while queue:
            here = queue.pop(0)
            for bottom in here.spec.bottom:
                other = self.maker(here, bottom)
                if other is not None and other.number not in seen:
                    seen.add(other.number)
                    queue.append(other)
                    yield other

    def after(self, node: Node) -> Iterator[Node]:
        """Yield the layers that depend on a layer, nearest first, each once."""
        seen, queue = {node.number}, [node]
        while queue:
            for other in self.readers(queue.pop(0)):
                if other.number not in seen:
                    seen.add(other.number)
                    queue.append(other)
                    yield other
