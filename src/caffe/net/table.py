"""Tables of text, as lines and as HTML."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape

__all__ = ["html", "text"]

Rows = Sequence[Sequence[str]]
"""Rows of cells; the first one is the head."""


def text(rows: Rows, right: Collection[int] = ()) -> str:
    """The table as lines of text; the columns in `right` hold numbers."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def html(rows: Rows, right: Collection[int] = (), caption: str = "") -> str:
    """The table as HTML; cells with numbers have the class "n"."""

    def line(cells: Sequence[str], kind: str) -> str:
        marks = [" class=n" if kind == "td" and column in right else "" for column in range(len(cells))]
        inner = (f"<{kind}{mark}>{escape(cell)}</{kind}>" for mark, cell in zip(marks, cells, strict=True))
        return f"<tr>{''.join(inner)}</tr>"

    head, *body = rows
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    return "\n".join([f"<table>{above}", line(head, "th"), *(line(row, "td") for row in body), "</table>"])
