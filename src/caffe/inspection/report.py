"""The result of an inspection, as text, JSON and HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

from caffe.net import table

__all__ = ["Report", "Table"]

_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:90em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{text-align:left;vertical-align:top;padding:.15em .6em;"
    "border-bottom:1px solid #ddd}.layers{overflow-x:auto;font-size:13px}"
    "th{white-space:nowrap}td.n,th.n{text-align:right;white-space:nowrap}"
    "h1{font-size:1.4em;overflow-wrap:anywhere}h2{font-size:1.15em;margin-top:1.5em}h2::first-letter{text-transform:uppercase}"
)


_WIDEST = 60
"""The most characters of a cell in the text."""


@dataclass
class Table:
    """A table of text with column titles. The columns in `right` contain numbers."""

    head: Sequence[str]
    rows: list[Sequence[str]]
    right: Sequence[int] = ()


@dataclass
class Report:
    """The description of a file. Empty parts are not shown."""

    path: str
    kind: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    origin: list[tuple[str, str, list[str]]] = field(default_factory=list)
    """Forks whose names occur: the fork, its certainty, and the names."""
    layers: Table | None = None
    needs: list[str] = field(default_factory=list)
    without_effect: list[str] = field(default_factory=list)
    unsupported: list[str] = field(default_factory=list)

    def add(self, name: str, text: object) -> None:
        """Add a fact."""
        self.facts.append((name, str(text)))

    def as_dict(self) -> dict[str, Any]:
        """Return everything as a JSON-compatible dict."""
        found = asdict(self)
        found["facts"] = dict(self.facts)
        found["origin"] = [{"fork": fork, "certainty": sure, "names": names} for fork, sure, names in self.origin]
        layers = self.layers or Table((), [])
        found["layers"] = [dict(zip(layers.head, row, strict=True)) for row in layers.rows]
        return found

    def text(self) -> str:
        """Return everything as text."""
        lines = [f"{self.path}: {self.kind}"]
        width = max((len(name) for name, _ in self.facts), default=0)
        lines += [f"{name.ljust(width)}  {text}" for name, text in self.facts]
        for title, items in self._lists():
            lines += ["", f"{title}:", *(f"  {item}" for item in items)]
        if self.layers is not None and self.layers.rows:
            rows = [[_short(cell) for cell in row] for row in self.layers.rows]
            lines += ["", table.text([self.layers.head, *rows], self.layers.right)]
        return "\n".join(lines)

    def html(self) -> str:
        """Return everything as one self-contained HTML page."""
        title = escape(f"{self.path}: {self.kind}")
        parts = [f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"]
        parts.append(f"<h1>{title}</h1><table>")
        parts += [f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in self.facts]
        parts.append("</table>")
        for heading, items in self._lists():
            parts.append(f"<h2>{escape(heading)}</h2><ul>")
            parts += [f"<li>{escape(item)}</li>" for item in items]
            parts.append("</ul>")
        if self.layers is not None and self.layers.rows:
            shown = table.html([self.layers.head, *self.layers.rows], self.layers.right)
            parts.append(f"<h2>Layers</h2><div class=layers>{shown}</div>")
        return "\n".join(parts) + "</html>\n"

    def _lists(self) -> list[tuple[str, list[str]]]:
        origin = [f"{fork} ({sure}): {', '.join(names)}" for fork, sure, names in self.origin]
        parts = [
            ("made for", origin),
            ("data it needs", self.needs),
            ("without effect here", self.without_effect),
            ("not supported", self.unsupported),
        ]
        return [(title, items) for title, items in parts if items]


def _short(cell: str) -> str:
    """Return a table cell shortened for the text output. The HTML page and the JSON contain the whole cell."""
    return cell if len(cell) <= _WIDEST else f"{cell[: _WIDEST - 4]} ..."
