"""Writing new record databases, for the conversion commands."""

from __future__ import annotations

import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from caffe.errors import FileError
from caffe.proto import files
from caffe.registry import Registry

__all__ = ["WRITERS", "RecordWriter", "create_database"]

Pending = list[tuple[bytes, bytes]]
WRITERS: Registry[type[RecordWriter]] = Registry("database backend", FileError, "backends")


class RecordWriter(ABC):
    """Creates a new database. Its folder appears under the final name only when it is complete.

    Used as `with LmdbWriter(path) as writer: writer.put(key, value)`. Each transaction commits `commit` records. If the
    block fails, nothing remains on disk. Subclasses are registered under their class argument `backend`.
    """

    backend: ClassVar[str]

    def __init_subclass__(cls, backend: str) -> None:
        cls.backend = backend
        WRITERS.add(backend.lower(), cls)

    def __init__(self, path: str | os.PathLike[str], overwrite: bool = False, commit: int = 1000) -> None:
        self.path = Path(path)
        self.count = 0
        self._overwrite = overwrite
        self._commit = commit
        self._pending: Pending = []
        if os.path.exists(self.path) and not overwrite:
            raise FileError(f'"{path}" exists already; remove it or choose another name')
        self._made = [folder for folder in self.path.parents if not os.path.exists(folder)]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._folder = tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        except (OSError, ValueError) as error:
            raise FileError(f'cannot write the {backend_name(self)} "{path}": {files.reason(error)}') from error
        try:
            self._open(self._folder)
        except BaseException:
            self._remove()
            raise

    def put(self, key: bytes, value: bytes) -> None:
        """Add a record. A second record with the same key replaces the first."""
        self._pending.append((key, value))
        self.count += 1
        if len(self._pending) == self._commit:
            self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._close()
            self._remove()

    @abstractmethod
    def _open(self, folder: str) -> None:
        """Create a database in an empty folder."""

    @abstractmethod
    def _write(self, records: Pending) -> None:
        """Write records. Raises FileError if the disk does not accept them."""

    @abstractmethod
    def _close(self) -> None:
        """Flush everything to disk and close the files. Can be called repeatedly."""

    def _remove(self) -> None:
        """Remove the unfinished database, and the parent folders that were created for it if they are empty."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError):
            for folder in self._made:
                folder.rmdir()

    def _flush(self) -> None:
        self._write(self._pending)
        self._pending.clear()

    def _finish(self) -> None:
        self._flush()
        self._close()
        try:
            os.chmod(self._folder, 0o777 & ~_umask())
            if self._overwrite and os.path.exists(self.path):
                os.rename(self.path, os.path.join(self._folder, "replaced"))
            os.rename(self._folder, self.path)
        except OSError as error:
            raise FileError(f'cannot write the {backend_name(self)} "{self.path}": {error.strerror}') from error
        shutil.rmtree(self.path / "replaced", ignore_errors=True)


def create_database(backend: str, path: str | os.PathLike[str], overwrite: bool = False) -> RecordWriter:
    """Create the writer of a new database with the named backend, such as "lmdb"."""
    return WRITERS.find(backend.lower())(path, overwrite)


def backend_name(writer: RecordWriter) -> str:
    """Return the backend's name for messages, such as `LMDB database`."""
    return f"{writer.backend} database"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
