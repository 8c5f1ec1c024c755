"""A net as a table of what each layer costs: shapes, parameters, arithmetic, memory, receptive field."""

from __future__ import annotations

import csv
import io
from dataclasses import astuple, dataclass
from typing import Any

from caffe.layers.convolution import Convolution
from caffe.layers.pooling import Pooling
from caffe.net import table
from caffe.net.measure.cost import products
from caffe.proto.caffe_pb2 import Phase

__all__ = ["Row", "Summary"]

_BYTES = 4


@dataclass(frozen=True)
class Row:
    """A layer: bottoms, and tops with shapes, as text; number of learned values; operations of its matrix products for
    a batch; bytes of its tops; receptive field: the side of the input region that a cell of its top depends on, or "".
    """

    name: str
    type: str
    bottoms: str
    tops: str
    parameters: int
    flops: int
    bytes: int
    field: str


class Summary:
    """The table of a net, as text, CSV or HTML: that of `caffe summary`, `caffe inspect`, `print(net)` and notebooks.

    Memory is that of the blobs in 32 bits; a top that is computed in place takes none. `arithmetic=False` leaves out
    the operations, for which every layer runs on meta tensors.
    """

    right = (4, 5, 6, 7)
    """The columns of numbers."""

    def __init__(self, net: Any, arithmetic: bool = True) -> None:
        self.name, self.phase, self.layers = net.name, Phase.Name(net.phase), len(net.layers)
        self.arithmetic = arithmetic
        fields = _fields(net)
        self.rows = [_row(step, fields, arithmetic) for step in net.steps]
        blobs = {id(blob.data_memory): blob.count for blobs in net.params.values() for blob in blobs}
        self.parameters = sum(blobs.values())
        self.flops = sum(row.flops for row in self.rows)
        self.bytes = sum(row.bytes for row in self.rows)

    @property
    def title(self) -> str:
        """Name, phase, layers, parameters, arithmetic, memory."""
        operations = f"{self.flops / 1e9:.3g} GFLOP and " if self.arithmetic else ""
        return (
            f"{self.name or 'net'} ({self.phase}): {self.layers} layers, {self.parameters:,} parameters "
            f"({_BYTES * self.parameters / 1e6:.3g} MB), {operations}{self.bytes / 1e6:.3g} MB of blobs a batch"
        )

    def table(self) -> list[tuple[str, ...]]:
        """The head and a row for each layer, as text."""
        body = [
            (
                row.name,
                row.type,
                row.bottoms,
                row.tops,
                _count(row.parameters),
                _figure(row.flops / 1e6),
                _figure(row.bytes / 1e6),
                row.field,
            )
            for row in self.rows
        ]
        rows: list[tuple[str, ...]] = [
            ("layer", "type", "bottoms", "tops", "parameters", "MFLOP", "MB", "field"),
            *body,
        ]
        return rows if self.arithmetic else [(*row[:5], *row[6:]) for row in rows]

    def text(self) -> str:
        """The table as lines."""
        return f"{self.title}\n{table.text(self.table(), self.right)}"

    def csv(self) -> str:
        """The table with plain numbers."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("layer", "type", "bottoms", "tops", "parameters", "flop", "bytes", "receptive_field"))
        for row in self.rows:
            writer.writerow(astuple(row))
        return text.getvalue()

    def html(self) -> str:
        """The table as HTML."""
        return table.html(self.table(), self.right, self.title) + "\n"


def _row(step: Any, fields: dict[str, tuple[int, int]], arithmetic: bool) -> Row:
    bottoms = {id(blob) for blob in step.bottoms}
    tops = ", ".join(
        f"{name} ({', '.join(map(str, blob.shape))})" for name, blob in zip(step.top_names, step.tops, strict=True)
    )
    made = sum(blob.count for blob in step.tops if id(blob) not in bottoms)
    parameters = sum(blob.count for blob in step.layer.param_blobs)
    flops = products(step) if arithmetic and step.bottoms else 0
    spatial = [name for name, blob in zip(step.top_names, step.tops, strict=True) if len(blob.shape) == 4]
    field = str(fields[spatial[0]][0]) if spatial and spatial[0] in fields else ""
    bottoms_read = ", ".join(step.bottom_names)
    return Row(step.layer.name, step.layer.type, bottoms_read, tops, parameters, flops, _BYTES * made, field)


def _fields(net: Any) -> dict[str, tuple[int, int]]:
    """For each blob the rows of the input that a cell sees, and how many rows neighbours are apart.

    Convolutions and poolings widen a field by (extent - 1) times the distance and multiply the distance by their
    stride; layers with several bottoms take the widest.
    """
    fields: dict[str, tuple[int, int]] = {}
    for step in net.steps:
        seen = [fields[name] for name in step.bottom_names if name in fields]
        field = max(seen, default=(1, 1) if not step.bottoms else (0, 0))
        for name, blob in zip(step.top_names, step.tops, strict=True):
            if not field[0] or len(blob.shape) != 4:
                continue
            fields[name] = _widened(step, field)
    return fields


def _widened(step: Any, field: tuple[int, int]) -> tuple[int, int]:
    layer, (size, apart) = step.layer, field
    if not isinstance(layer, Convolution | Pooling):
        return field
    options = layer.opt
    if isinstance(layer, Pooling):
        kernel = step.bottoms[0].shape[2] if options.global_pooling else options.kernel_h or options.kernel_size
        return size + (kernel - 1) * apart, apart * (options.stride_h or options.stride or 1)
    kernel, stride = (
        options.kernel_h or next(iter(options.kernel_size), 1),
        options.stride_h or next(iter(options.stride), 1),
    )
    dilation = next(iter(options.dilation), 1)
    return size + dilation * (kernel - 1) * apart, apart * stride


def _count(value: int) -> str:
    return f"{value:,}" if value else ""


def _figure(value: float) -> str:
    return f"{value:,.3f}" if value else ""
