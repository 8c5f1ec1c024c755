"""Reads a file that another program writes: its new content, and whether it was replaced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from caffe.proto import files

__all__ = ["Piece", "Tail"]

_PIECE = 4 << 20  # bytes per read
_HEAD, _MARK = 256, 64  # bytes that identify a file: its first ones, and those before the current position


class Piece(NamedTuple):
    """Newly read bytes, whether they come from another file than before, and whether more are available."""

    data: bytes
    replaced: bool
    more: bool


class Tail:
    """Reads a file from the position where reading stopped.

    A file that was truncated, rewritten or replaced (a rotated log) is read from its start. `message` says why there is
    nothing to read, or what happened; otherwise it is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self.size = 0
        self.modified = 0.0
        self.message = ""
        self._head = self._mark = b""
        self._seen: tuple[int, ...] = ()

    def state(self) -> dict[str, Any]:
        """Return the state that `restore` needs to continue at this position."""
        return {"offset": self.offset, "head": self._head.hex(), "mark": self._mark.hex()}

    def restore(self, state: dict[str, Any]) -> bool:
        """Restore a result of `state`; returns False if the file is no longer the same."""
        head, mark = bytes.fromhex(state["head"]), bytes.fromhex(state["mark"])
        self.offset, self._head, self._mark = int(state["offset"]), head, mark
        try:
            with open(self.path, "rb") as file:
                same = self._same(file, os.fstat(file.fileno()).st_size)
        except OSError:
            same = False
        if not same:
            self.offset, self._head, self._mark = 0, b"", b""
        return same

    def read(self) -> Piece | None:
        """Return the next bytes, or None if nothing changed or nothing can be read.

        `advance` reports how many of them were used.
        """
        try:
            status = os.stat(self.path)
            seen = (status.st_ino, status.st_size, status.st_mtime_ns)
            if seen == self._seen:
                return None
            files.refuse_special(self.path)
            with open(self.path, "rb") as file:
                replaced = not self._same(file, status.st_size)
                if replaced:
                    self.offset = 0
                file.seek(self.offset)
                data = file.read(_PIECE)
                more = len(data) == _PIECE
                if self.offset == 0:
                    self._head = data[:_HEAD]
        except OSError as error:
            self._gone(error)
            return None
        self.size, self.modified = status.st_size, status.st_mtime
        self._seen = () if more else seen
        if replaced:
            self.message = f"{self.path.name} was truncated, rewritten or rotated; it is read from its start"
        elif self.message.startswith(f"cannot read {self.path.name}"):
            self.message = ""
        return Piece(data, replaced, more)

    def advance(self, data: bytes) -> None:
        """The first bytes of the last piece, `data`, were used."""
        if data:
            self.offset += len(data)
            self._mark = (self._mark + data)[-_MARK:] if len(data) < _MARK else data[-_MARK:]

    def _same(self, file: Any, size: int) -> bool:
        """Whether an open file still has the same bytes at its start and before the current position."""
        if size < self.offset:
            return False
        if not self.offset:
            return True
        head = self._head[: self.offset]
        if file.read(len(head)) != head:
            return False
        file.seek(self.offset - len(self._mark))
        return bool(file.read(len(self._mark)) == self._mark)

    def _gone(self, error: OSError) -> None:
        gone = isinstance(error, FileNotFoundError)
        reason = "the file does not exist (deleted, moved, or not yet written)" if gone else files.reason(error)
        self.message = f"cannot read {self.path.name}: {reason}" + ("; what was read is kept" if self.offset else "")
        self._seen = ()
