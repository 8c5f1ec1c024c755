"""Record sources: databases of (key, value) pairs in key order."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import closing
from typing import ClassVar

from caffe import log
from caffe.errors import FileError
from caffe.proto import extend
from caffe.proto.caffe_pb2 import DataParameter
from caffe.registry import Registry

__all__ = [
    "READERS",
    "Bytes",
    "RecordSource",
    "Records",
    "WrongBackend",
    "backend_of",
    "not_found",
    "open_source",
    "refuse_shards",
    "show_key",
]

Bytes = bytes | memoryview
Records = Generator[tuple[bytes, Bytes], None, None]
READERS: Registry[type[RecordSource]] = Registry("database backend", FileError, "backends")


class WrongBackend(FileError):
    """The database has another backend than the one asked for.

    `found` is its actual backend; `fact` is the first part of the message.
    """

    def __init__(self, text: str, found: str = "") -> None:
        super().__init__(f"{text}; set backend: {found}" if found else text)
        self.fact = text
        self.found = found


def refuse_shards(path: str) -> None:
    """Raise WrongBackend if `path` names tar shards: an archive, a pattern of archives, or a folder of them."""
    folder = os.path.isdir(path) and not os.path.exists(os.path.join(path, "data.mdb"))
    if path.endswith(".tar") or (folder and any(name.endswith(".tar") for name in os.listdir(path))):
        raise WrongBackend(f'"{path}" names tar shards', "TAR")


def not_found(kind: str, path: str) -> FileError:
    """Create the error for a missing database. It includes the command that creates such a database."""
    folder, name = os.path.split(path.rstrip("/"))
    digits = name in ("mnist_train_lmdb", "mnist_test_lmdb")
    maker = f"caffe data mnist -o {folder or '.'}" if digits else "caffe convert_imageset"
    return FileError(
        f'{kind} database "{path}" not found: no such file or directory (from {os.getcwd()}); make it with: {maker}'
    )


class RecordSource(ABC):
    """A database opened for reading. It is never modified.

    Subclasses are registered under their class argument `backend`, the value of `data_param.backend` in a prototxt.
    The package imports all modules of this folder.
    """

    backend: ClassVar[str]

    def __init_subclass__(cls, backend: str) -> None:
        cls.backend = backend
        READERS.add(backend, cls)
        extend.add_name(backend)

    @classmethod
    def fits(cls, path: str) -> bool:
        """Whether the files at `path` are of this backend. The commands that take any database ask this."""
        return False

    def __init__(self, path: str) -> None:
        """Open the database at `path`. Raises FileError if it is missing, empty, damaged, or of another backend."""
        self.path = path

    @abstractmethod
    def scan(self, start: bytes | None = None) -> Records:
        """Yield every (key, value) once, in key order, from the first key >= `start` on.

        A value can be a view of the database's memory. It is valid until the iterator is closed.
        """

    def count(self) -> int:
        """Return the number of records, or 0 if only a full scan could count them."""
        return 0

    def first(self) -> tuple[bytes, bytes]:
        """Return the first record."""
        with closing(self.scan()) as records:
            key, value = next(records)
            return key, bytes(value)

    def records(self, start: bytes | None = None) -> Records:
        """Like `scan`, but starts again with the first record after the last one, endlessly."""
        yield from self.scan(start)
        while True:
            log.info("data_layer.cpp:73", "Restarting data prefetching from start.")
            yield from self.scan()

    @abstractmethod
    def close(self) -> None:
        """Close the database and release its resources."""

    def _refuse_empty(self) -> None:
        if next(self.scan(), None) is None:
            raise FileError(f'{self.backend} database "{self.path}" holds no records; write it again')


def backend_of(options: DataParameter) -> str:
    """Return the name of the backend in a layer's `data_param`: one of caffe.proto, or one that code adds."""
    return options.backend_name or DataParameter.DB.Name(options.backend)


def open_source(backend: str, path: str) -> RecordSource:
    """Open the database at `path` with the named backend, such as "LMDB"."""
    return READERS.find(backend)(path)


def show_key(key: bytes) -> str:
    """Format a key for a message: as text if it is text, otherwise in hexadecimal."""
    text = key.decode("utf-8", "replace")
    return f'"{text}"' if text.isprintable() else f"0x{key.hex()}"
