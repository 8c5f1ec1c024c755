"""Record sources: databases of (key, value) in key order."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import closing
from typing import ClassVar

from caffe import log
from caffe.errors import FileError
from caffe.registry import Registry

__all__ = ["Bytes", "RecordSource", "Records", "WrongBackend", "not_found", "open_source", "show_key"]

Bytes = bytes | memoryview
Records = Generator[tuple[bytes, Bytes], None, None]
READERS: Registry[type[RecordSource]] = Registry("database backend", FileError, "backends")


class WrongBackend(FileError):
    """A database of another kind than the one that was asked for; `found` is its backend, and `fact` tells it."""

    def __init__(self, text: str, found: str = "") -> None:
        super().__init__(f"{text}; set backend: {found}" if found else text)
        self.fact = text
        self.found = found


def not_found(kind: str, path: str) -> FileError:
    """The error for a database that does not exist, with the command that makes one."""
    folder, name = os.path.split(path.rstrip("/"))
    digits = name in ("mnist_train_lmdb", "mnist_test_lmdb")
    maker = f"caffe data mnist -o {folder or '.'}" if digits else "caffe convert_imageset"
    return FileError(
        f'{kind} database "{path}" not found: no such file or directory (from {os.getcwd()}); make it with: {maker}'
    )


class RecordSource(ABC):
    """A database opened for reading, never written to.

    Defining a subclass registers it under its class argument `backend`, the name that `data_param.backend` gives.
    """

    backend: ClassVar[str]

    def __init_subclass__(cls, backend: str) -> None:
        cls.backend = backend
        READERS.add(backend, cls)

    def __init__(self, path: str) -> None:
        """Open the database at `path`; FileError if it is missing, empty, damaged or of another kind."""
        self.path = path

    @abstractmethod
    def scan(self, start: bytes | None = None) -> Records:
        """Every (key, value) in key order from the first key >= `start` on, once.

        A value may be a view of the database's memory, which is valid until the iterator is closed.
        """

    def count(self) -> int:
        """The number of records, or 0 where only reading them all would tell."""
        return 0

    def first(self) -> tuple[bytes, bytes]:
        """The first record."""
        with closing(self.scan()) as records:
            key, value = next(records)
            return key, bytes(value)

    def records(self, start: bytes | None = None) -> Records:
        """As `scan`, but after the last record comes the first, without end."""
        yield from self.scan(start)
        while True:
            log.info("data_layer.cpp:73", "Restarting data prefetching from start.")
            yield from self.scan()

    @abstractmethod
    def close(self) -> None:
        """Let go of the database."""

    def _refuse_empty(self) -> None:
        if next(self.scan(), None) is None:
            raise FileError(f'{self.backend} database "{self.path}" holds no records; write it again')


def open_source(backend: str, path: str) -> RecordSource:
    """Open the database at `path` with the backend of that name, such as "LMDB"."""
    return READERS.find(backend)(path)


def show_key(key: bytes) -> str:
    """A key for a message: its text, or hexadecimal where it is none."""
    text = key.decode("utf-8", "replace")
    return f'"{text}"' if text.isprintable() else f"0x{key.hex()}"
