"""The base class of files that a run is read from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from caffe.monitor.curve import Curve
from caffe.monitor.facts import Facts
from caffe.monitor.tail import Tail

__all__ = ["Source"]


class Source(ABC):
    """Reads one file incrementally into curves and facts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tail = Tail(path)
        self.curves: dict[str, Curve] = {}
        self.facts = Facts()

    def poll(self) -> tuple[bool, bool]:
        """Read the next piece of the file; returns whether anything changed, and whether more is available."""
        message = self.tail.message
        piece = self.tail.read()
        if piece is None:
            return self.tail.message != message, False
        if piece.replaced:
            self.restarted()
        used = self.use(piece.data)
        self.tail.advance(piece.data[:used])
        for curve in list(self.curves.values()):
            curve.flush()
        return bool(used) or piece.replaced or self.tail.message != message, piece.more and used > 0

    @abstractmethod
    def use(self, data: bytes) -> int:
        """Process the complete part of `data`; returns the number of bytes used."""

    def restarted(self) -> None:
        """The file was replaced by another one: discard the content of the old one."""
        self.clear()

    def clear(self) -> None:
        """Discard all curves."""
        self.curves = {}

    def curve(self, tag: str) -> Curve:
        """Return the curve of a tag; creates it if needed."""
        found = self.curves.get(tag)
        if found is None:
            found = Curve()
            self.curves = {**self.curves, tag: found}  # a reader in another thread keeps the old dictionary
        return found

    def state(self) -> dict[str, Any]:
        """Return the state that the index stores besides curves and facts."""
        return {"tail": self.tail.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a result of `state`. Raises KeyError or ValueError if the file is another one."""
        if not self.tail.restore(state["tail"]):
            raise ValueError("the file has changed")
