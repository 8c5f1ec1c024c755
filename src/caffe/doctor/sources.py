"""The data sources of a net in one phase, and how to replace them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from caffe.doctor.view import View
from caffe.proto import caffe_pb2

__all__ = ["SourceOption", "source_options"]


@dataclass(frozen=True)
class SourceOption:
    """The options of a data layer, within the net.

    `index` is the layer's index; `field` is for example "data_param".
    """

    index: int
    field: str
    options: Any

    @property
    def source(self) -> str:
        """The source, or several separated by commas."""
        source = self.options.source
        return source if isinstance(source, str) else ",".join(source)

    def replace(self, source: str) -> None:
        """Make the layer read another source."""
        if isinstance(self.options.source, str):
            self.options.source = source
        else:
            self.options.source[:] = [source]


def source_options(net: Any, phase: int, state: Any = None) -> list[SourceOption]:
    """Return the options that name a source, of all layers without bottoms in the phase."""
    view = View(net, phase, caffe_pb2.NetState() if state is None else state)
    layers = [(node.index, net.layer[node.index]) for node in view.nodes if not node.spec.bottom]
    return [
        SourceOption(index, field.name, value)
        for index, layer in layers
        for field, value in layer.ListFields()
        if field.name.endswith("_param") and hasattr(value, "source")
    ]
