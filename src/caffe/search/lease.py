"""Leases: file locks that assign work to one process and are released when that process ends, in any way."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["JournalLock", "Lease", "locked"]


class Lease:
    """A file lock. The kernel releases it when the process ends, even by kill -9, so no stale lock remains.

    Processes that share a folder share its leases.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    @classmethod
    def take(cls, path: Path, wait: bool = False) -> Lease | None:
        """Acquire the lease. Returns None if another process holds it and `wait` is false."""
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a")  # noqa: SIM115 - the lease holds the file open
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.close()
            return None
        return cls(file)

    def release(self) -> None:
        """Release the lease."""
        self._file.close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Run the block while no other process runs it."""
    held = Lease.take(path, wait=True)
    assert held is not None
    try:
        yield
    finally:
        held.release()


class JournalLock:
    """The lock of Optuna's journal file, replacing Optuna's own.

    Optuna's lock is a link that remains when a process is killed, and then blocks the others. This one is released by
    the kernel. If a killed process left an incomplete line, it is cut off before the next line is written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: Lease | None = None

    def acquire(self) -> bool:
        """Wait for the lock. Always returns True, as Optuna expects."""
        self._held = Lease.take(self._path.with_name(f"{self._path.name}.flock"), wait=True)
        self._cut()
        return True

    def release(self) -> None:
        """Release the lock."""
        if self._held is not None:
            self._held.release()
            self._held = None

    def _cut(self) -> None:
        """Truncate the journal after its last complete line."""
        if not self._path.exists() or not self._path.stat().st_size:
            return
        with open(self._path, "r+b") as file:
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
