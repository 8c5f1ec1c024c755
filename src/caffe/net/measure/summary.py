"""A net as a table of what each layer costs: shapes, parameters, arithmetic, memory, receptive field."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from caffe.layers.convolution import Convolution
from caffe.layers.pooling import Pooling
from caffe.net.measure.cost import cost

__all__ = ["Row", "Summary"]

_BYTES = 4


@dataclass(frozen=True)
class Row:
    """A layer: tops as text, learned numbers, operations of its products for a batch, bytes of its tops, and the side
    of the part of the input that a cell of its top sees (0 where that has no meaning)."""

    name: str
    type: str
    tops: str
    parameters: int
    flops: int
    bytes: int
    field: str


class Summary:
    """The table of a net, as text, CSV or HTML.

    Memory is that of the blobs in 32 bits; a top that is computed in place takes none.
    """

    def __init__(self, net: Any) -> None:
        self.name, self.layers = net.name, len(net.layers)
        fields = _fields(net)
        self.rows = [_row(step, fields) for step in net.steps]
        blobs = {id(blob.data_memory): blob.count for blobs in net.params.values() for blob in blobs}
        self.parameters = sum(blobs.values())
        self.flops = sum(row.flops for row in self.rows)
        self.bytes = sum(row.bytes for row in self.rows)

    @property
    def title(self) -> str:
        """Name, layers, parameters, arithmetic, memory."""
        return (
            f"{self.name or 'net'}: {self.layers} layers, {self.parameters:,} parameters "
            f"({_BYTES * self.parameters / 1e6:.3g} MB), {self.flops / 1e9:.3g} GFLOP and {self.bytes / 1e6:.3g} MB of "
            "blobs a batch"
        )

    def table(self) -> list[tuple[str, ...]]:
        """The head and a row for each layer, as text."""
        body = [
            (
                row.name,
                row.type,
                row.tops,
                _count(row.parameters),
                _figure(row.flops / 1e6),
                _figure(row.bytes / 1e6),
                row.field,
            )
            for row in self.rows
        ]
        return [("layer", "type", "tops", "parameters", "MFLOP", "MB", "field"), *body]

    def text(self) -> str:
        """The table as lines."""
        rows = self.table()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if column < 3 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join([self.title, *lines])

    def csv(self) -> str:
        """The table with plain numbers."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("layer", "type", "tops", "parameters", "flop", "bytes", "receptive_field"))
        for row in self.rows:
            writer.writerow((row.name, row.type, row.tops, row.parameters, row.flops, row.bytes, row.field))
        return text.getvalue()

    def html(self) -> str:
        """The table as HTML."""
        head, *body = self.table()

        def line(cells: Sequence[str], kind: str) -> str:
            return "<tr>" + "".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in cells) + "</tr>"

        rows = "\n".join(line(row, "td") for row in body)
        return f"<table><caption>{escape(self.title)}</caption>\n{line(head, 'th')}\n{rows}\n</table>\n"


def _row(step: Any, fields: dict[str, tuple[int, int]]) -> Row:
    bottoms = {id(blob) for blob in step.bottoms}
    tops = ", ".join(
        f"{name} ({', '.join(map(str, blob.shape))})" for name, blob in zip(step.top_names, step.tops, strict=True)
    )
    made = sum(blob.count for blob in step.tops if id(blob) not in bottoms)
    parameters = sum(blob.count for blob in step.layer.param_blobs)
    flops = cost(step).flops if step.bottoms else 0
    spatial = [name for name, blob in zip(step.top_names, step.tops, strict=True) if len(blob.shape) == 4]
    field = str(fields[spatial[0]][0]) if spatial and spatial[0] in fields else ""
    return Row(step.layer.name, step.layer.type, tops, parameters, flops, _BYTES * made, field)


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
