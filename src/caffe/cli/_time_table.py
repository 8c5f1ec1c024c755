"""The output of `caffe time` besides Caffe's log: a table of the layers, and the net run as a whole."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from caffe.cli._nets import bytes_text
from caffe.net.measure.cost import Cost
from caffe.net.measure.footprint import Footprint

__all__ = ["LayerTime", "Whole", "show"]


_HEADS = (
    *("\nlayer", "\ntype", "forward\nms", "backward\nms", "\nshare"),
    *("\nGFLOP", "forward\nGFLOP/s", "backward\nGFLOP/s", "of\npeak", "\nMB", "\nGB/s"),
)
_LEAVE_OUT = (1, 10, 9)  # columns that a narrow terminal omits, in this order
_GAP = 2


@dataclass(frozen=True)
class LayerTime:
    """A layer, its forward and backward times in milliseconds, its cost, and whether it reads blobs."""

    name: str
    type: str
    forward: float
    backward: float
    cost: Cost
    reads: bool = True


@dataclass(frozen=True)
class Whole:
    """The net run as a whole: milliseconds per run, number of forward product passes per run, memory.

    `peak` is the speed of large matrix products on this machine, in floating-point operations per second, at the net's
    precision; `layer_peak` is the same in float32, which single layers use.
    """

    what: str
    milliseconds: float
    passes: int
    peak: float
    memory: Footprint
    held: dict[str, int]
    layer_peak: float


def show(layers: Sequence[LayerTime], whole: Whole) -> None:
    """Print everything on standard output."""
    from rich.console import Console

    console = Console(highlight=False)
    total = _sum(layers)
    rows = [_row(layer, total, whole.layer_peak) for layer in (*layers, total)]
    columns = list(zip(_HEADS, *rows, strict=True))
    widths = [max(len(line) for cell in column for line in cell.split("\n")) + _GAP for column in columns]
    if not sys.stdout.isatty():
        console.width = sum(widths)
    console.print(_table([columns[index] for index in _shown(widths, console.width)]))
    for line in _whole_lines(whole, total):
        console.print(line, markup=False, soft_wrap=True)


def _shown(widths: Sequence[int], limit: int) -> list[int]:
    """Return the columns that fit into `limit`: all of them, or all but some of _LEAVE_OUT."""
    shown = list(range(len(widths)))
    for index in _LEAVE_OUT:
        if sum(widths[i] for i in shown) - _GAP > limit:
            shown.remove(index)
    return shown


def _table(columns: Sequence[Sequence[str]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", show_footer=True, footer_style="bold")
    for head, *cells in columns:
        text = head in _HEADS[:2]  # this column shrinks in a narrow terminal
        table.add_column(head, cells[-1], justify="left" if text else "right", no_wrap=not text, overflow="ellipsis")
    for row in zip(*(column[1:-1] for column in columns), strict=True):
        table.add_row(*row)
    return table


def _sum(layers: Sequence[LayerTime]) -> LayerTime:
    costs = [layer.cost for layer in layers]
    cost = Cost(*(sum(getattr(each, part) for each in costs) for part in ("flops", "backward_flops", "moved")))
    return LayerTime("all layers", "", sum(x.forward for x in layers), sum(x.backward for x in layers), cost)


def _row(layer: LayerTime, total: LayerTime, peak: float) -> tuple[str, ...]:
    cost, spent = layer.cost, layer.forward + layer.backward
    share = "100 %" if layer is total else f"{100 * spent / (total.forward + total.backward):.1f} %"
    start = (layer.name, layer.type, number(layer.forward), number(layer.backward), share)
    moved = number(cost.moved / 1e6) if cost.moved else ""
    if not cost.flops:
        read_and_written = cost.moved and layer.reads
        return *start, "", "", "", "", moved, number(cost.moved / layer.forward / 1e6) if read_and_written else ""
    return (
        *start,
        number(cost.flops / 1e9),
        number(cost.flops / layer.forward / 1e6),
        number(cost.backward_flops / layer.backward / 1e6) if cost.backward_flops else "",
        f"{1e5 * (cost.flops + cost.backward_flops) / spent / peak:.0f} %",
        moved,
        "",
    )


def _whole_lines(whole: Whole, total: LayerTime) -> list[str]:
    flops, spent = whole.passes * total.cost.flops, whole.milliseconds
    line = f"{whole.what}, the whole net as one piece: {number(spent)} ms"
    if not flops:
        return ["", line, *_memory_lines(whole)]
    limit = 1e3 * flops / whole.peak
    times = f"{whole.passes} x " if whole.passes > 1 else ""
    return [
        "",
        f"{line}, {number(flops / spent / 1e6)} GFLOP/s, {spent / limit:.2f} times the limit",
        f"limit: {number(limit)} ms, {times}{number(total.cost.flops / 1e9)} GFLOP at {number(whole.peak / 1e9)} "
        "GFLOP/s, the speed of large matrix products on this machine",
        *_memory_lines(whole),
    ]


def _memory_lines(whole: Whole) -> list[str]:
    memory = whole.memory
    if memory.peak is None:
        return []
    before = f", {bytes_text(memory.before)} before it" if memory.before is not None else ""
    parts = ", ".join(f"{what} {bytes_text(size)}" for what, size in whole.held.items())
    return [f"peak memory: {bytes_text(memory.peak)}{before} ({memory.source})", f"the net holds: {parts}"]


def number(value: float) -> str:
    """Format three significant digits for columns: `0.123`, `1.23`, `12.3`, `1,234`."""
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"
