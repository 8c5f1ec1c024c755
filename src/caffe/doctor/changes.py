"""Changes of a solver and its net. They can be applied to the messages, or to the files with comments kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from caffe.proto import text
from caffe.proto.source import Source

__all__ = ["AddLayer", "Change", "RemoveLayer", "SetField", "SetInputs"]


@dataclass(frozen=True)
class SetField:
    """Set a field to a value in prototxt syntax. `layer` is the layer's index in the net; None means the solver.

    `path` is for example `inner_product_param.weight_filler.type` or `param[1].lr_mult`. The value "" clears the field.
    """

    layer: int | None
    path: str
    value: str

    @property
    def place(self) -> tuple[Any, ...]:
        return "field", self.layer, self.path

    def apply(self, solver: Any, net: Any) -> None:
        message = solver if self.layer is None else net.layer[self.layer]
        *parents, last = self.path.split(".")
        for part in parents:
            message = _inner(message, part)
        message.ClearField(last.partition("[")[0])
        if self.value:
            text.parse(f"{last}{'' if self.value.startswith('{') else ':'} {self.value}", message)

    def write(self, solver: Source, net: Source) -> None:
        source = solver if self.layer is None else net
        root = None if self.layer is None else net.layers()[self.layer]
        if self.value:
            source.set(root, self.path, self.value)
        elif (entry := source.find(root, self.path)) is not None:
            source.remove(entry)


@dataclass(frozen=True)
class SetInputs:
    """Change the bottoms of a layer."""

    layer: int
    bottoms: tuple[str, ...]

    @property
    def place(self) -> tuple[Any, ...]:
        return "inputs", self.layer

    def apply(self, solver: Any, net: Any) -> None:
        net.layer[self.layer].bottom[:] = self.bottoms

    def write(self, solver: Source, net: Source) -> None:
        for index, name in enumerate(self.bottoms):
            net.set(net.layers()[self.layer], f"bottom[{index}]", f'"{name}"')


@dataclass(frozen=True)
class RemoveLayer:
    """Remove a layer with one bottom and one top. Layers that read its top then read its bottom."""

    layer: int

    @property
    def place(self) -> tuple[Any, ...]:
        return "layer", self.layer

    def apply(self, solver: Any, net: Any) -> None:
        spec = net.layer[self.layer]
        old, new = spec.top[0], spec.bottom[0]
        for other in net.layer[self.layer + 1 :]:
            other.bottom[:] = [new if name == old else name for name in other.bottom]
        del net.layer[self.layer]

    def write(self, solver: Source, net: Source) -> None:
        block = net.layers()[self.layer]
        old, new = (net.string(block, name) for name in ("top", "bottom"))
        for index in range(self.layer + 1, len(net.layers())):
            for number in range(len(net.layers()[index].all("bottom"))):
                entry = net.layers()[index].all("bottom")[number]
                if net.text[entry.value + 1 : entry.end - 1] == old:
                    net.set(net.layers()[index], f"bottom[{number}]", f'"{new}"')
        net.remove(net.layers()[self.layer])


@dataclass(frozen=True)
class AddLayer:
    """Insert an in-place layer on a blob, after another layer. `block` is its prototxt."""

    after: int
    block: str

    @property
    def place(self) -> tuple[Any, ...]:
        return "layer", self.after, self.block

    def apply(self, solver: Any, net: Any) -> None:
        added = type(net)()
        text.parse(self.block, added)
        layers = [*net.layer[: self.after + 1], *added.layer, *net.layer[self.after + 1 :]]
        copies = [type(layer)() for layer in layers]
        for copy, layer in zip(copies, layers, strict=True):
            copy.CopyFrom(layer)
        del net.layer[:]
        net.layer.extend(copies)

    def write(self, solver: Source, net: Source) -> None:
        net.insert_after(net.layers()[self.after], self.block)


Edit = SetField | SetInputs | RemoveLayer | AddLayer


@dataclass(frozen=True)
class Change:
    """Edits that belong together. `text` describes them in messages: "base_lr 0.01", "ReLU after ip1"."""

    text: str
    edits: tuple[Edit, ...]

    def apply(self, solver: Any, net: Any) -> None:
        """Apply the edits to the messages."""
        for edit in self._ordered():
            edit.apply(solver, net)

    def write(self, solver: Source, net: Source) -> None:
        """Apply the edits to the texts of the files."""
        for edit in self._ordered():
            edit.write(solver, net)

    @classmethod
    def together(cls, changes: Sequence[Change]) -> Change:
        """Combine several changes to one. If two set the same field or modify the same layer differently, the first is
        used.
        """
        edits: dict[tuple[Any, ...], Edit] = {}
        for edit in (edit for change in changes for edit in change.edits):
            edits.setdefault(edit.place, edit)
        return cls(", ".join(change.text for change in changes), tuple(edits.values()))

    def _ordered(self) -> list[Edit]:
        """Sort the edits: fields first, then layers from last to first, so that the indices stay valid."""
        moves: list[RemoveLayer | AddLayer] = []
        fields: list[Edit] = []
        for edit in self.edits:
            if isinstance(edit, (RemoveLayer, AddLayer)):
                moves.append(edit)
            else:
                fields.append(edit)
        moves.sort(key=lambda edit: -(edit.layer if isinstance(edit, RemoveLayer) else edit.after))
        return [*fields, *moves]


def _inner(message: Any, part: str) -> Any:
    name, _, index = part.partition("[")
    if not index:
        return getattr(message, name)
    wanted, items = int(index.rstrip("]")), getattr(message, name)
    while len(items) <= wanted:
        items.add()
    return items[wanted]
