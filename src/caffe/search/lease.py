"""Leases: a piece of work belongs to one process, and is free again as soon as that process ends, however it ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["JournalLock", "Lease", "locked"]


class Lease:
    """The lock of a file. The kernel releases it when the process ends, by kill -9 as well: no lease is left behind.

    Processes that share a folder share its leases.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    @classmethod
    def take(cls, path: Path, wait: bool = False) -> Lease | None:
        """The lease, or None where another process has it and `wait` is off."""
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a")  # noqa: SIM115 - the lease holds the file open
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.close()
            return None
        return cls(file)

    def release(self) -> None:
        """Give the lease back."""
        self._file.close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Run a block that no other process runs at the same time."""
    held = Lease.take(path, wait=True)
    assert held is not None
    try:
        yield
    finally:
        held.release()


class JournalLock:
    """The lock of Optuna's journal file, in place of its own.

    Optuna's lock is a link that a killed process leaves behind, and which the others then wait for. The kernel releases
    this one. A line that a killed process wrote in part is cut off before the next one is written behind it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: Lease | None = None

    def acquire(self) -> bool:
        """Wait for the lock; always True, as Optuna expects."""
        self._held = Lease.take(self._path.with_name(f"{self._path.name}.flock"), wait=True)
        self._cut()
        return True

    def release(self) -> None:
        """Give the lock back."""
        if self._held is not None:
            self._held.release()
            self._held = None

    def _cut(self) -> None:
        """Cut the journal off after its last line end."""
        if not self._path.exists() or not self._path.stat().st_size:
            return
        with open(self._path, "r+b") as file:
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
