"""The table of a net's layers that `print(net)` and notebooks show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Protocol

from caffe.blob import Blob
from caffe.layers.base import Layer
from caffe.net.graph.step import Step
from caffe.proto import caffe_pb2

__all__ = ["html", "text"]


class Shown(Protocol):
    """The attributes of a net that the table uses."""

    name: str
    phase: int

    @property
    def steps(self) -> Sequence[Step]: ...

    @property
    def layers(self) -> Sequence[Layer]: ...

    @property
    def params(self) -> Mapping[str, Sequence[Blob]]: ...


_HEAD = ("layer", "type", "tops", "parameters")


def text(net: Shown) -> str:
    """The table as lines of text."""
    rows = [_HEAD, *_rows(net)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    count = max(len(row[3]) for row in rows)
    lines = [_title(net)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row[3].rjust(count)]).rstrip())
    return "\n".join(lines)


def html(net: Shown) -> str:
    """The table for a notebook."""

    def line(cells: tuple[str, ...], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in cells) + "</tr>"

    rows = "".join(line(row, "td") for row in _rows(net))
    return f"<table><caption>{escape(_title(net))}</caption>{line(_HEAD, 'th')}{rows}</table>"


def _title(net: Shown) -> str:
    blobs = {id(blob.data_memory): blob.count for blobs in net.params.values() for blob in blobs}
    phase = caffe_pb2.Phase.Name(net.phase)
    return f'Net "{net.name}" ({phase}): {len(net.layers)} layers, {sum(blobs.values()):,} parameters'


def _rows(net: Shown) -> list[tuple[str, str, str, str]]:
    """For each layer its name, type, tops with shapes, and number of parameters."""
    rows = []
    for step in net.steps:
        tops = ", ".join(f"{name} {_shape(blob.shape)}" for name, blob in zip(step.top_names, step.tops, strict=True))
        count = sum(blob.count for blob in step.layer.param_blobs)
        rows.append((step.layer.name, step.layer.type, tops, f"{count:,}" if count else ""))
    return rows


def _shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"
