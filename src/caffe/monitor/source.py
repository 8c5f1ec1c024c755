"""The base of what a run is read from: a file with curves and facts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from caffe.monitor.curve import Curve
from caffe.monitor.facts import Facts
from caffe.monitor.tail import Tail

__all__ = ["Source"]


class Source(ABC):
    """Reads one file piece by piece into curves and facts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tail = Tail(path)
        self.curves: dict[str, Curve] = {}
        self.facts = Facts()

    def poll(self) -> tuple[bool, bool]:
        """Read the next piece of the file: whether anything changed, and whether more follows."""
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
        """Read what is whole of `data`; returns how many bytes that are."""

    def restarted(self) -> None:
        """Another file is there under the name: forget what the old one told."""
        self.clear()

    def clear(self) -> None:
        """Forget all curves."""
        self.curves = {}

    def curve(self, tag: str) -> Curve:
        """The curve of a tag, which begins here if it is new."""
        found = self.curves.get(tag)
        if found is None:
            found = Curve()
            self.curves = {**self.curves, tag: found}  # a reader in another thread keeps the old dictionary
        return found

    def state(self) -> dict[str, Any]:
        """What the index keeps beside curves and facts."""
        return {"tail": self.tail.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was made. Raises KeyError or ValueError where the file is another one."""
        if not self.tail.restore(state["tail"]):
            raise ValueError("the file has changed")
