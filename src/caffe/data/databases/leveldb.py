"""LevelDB databases, read and written by the optional package plyvel."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
import weakref
from contextlib import closing, suppress
from typing import Any, BinaryIO

from caffe import log
from caffe.data.databases.base import Records, RecordSource, WrongBackend, not_found, refuse_shards
from caffe.data.databases.writer import Pending, RecordWriter
from caffe.errors import DataError, FileError, require_extra
from caffe.proto import files

__all__ = ["LevelDb", "LevelDbWriter"]

_PREFIX = "caffe-leveldb-"
_IN_USE = "caffe.lock"


class LevelDb(RecordSource, backend="LEVELDB"):
    """A LevelDB folder, opened for reading.

    The library locks a database and rewrites its log even when it only reads. Therefore it gets a temporary folder with
    links to the database's files. The database folder itself is not modified, can be read-only, and can be opened many
    times.
    """

    @classmethod
    def fits(cls, path: str) -> bool:
        return os.path.exists(os.path.join(path, "CURRENT"))

    def __init__(self, path: str) -> None:
        super().__init__(path)
        _check(path)
        plyvel: Any = require_extra("plyvel", "leveldb", f'reading the LevelDB database "{path}"')
        self._error = plyvel.Error
        _remove_leftovers()
        folder, lock = _linked(path)
        self._remove = weakref.finalize(self, _remove, folder, lock)
        try:
            self._db = plyvel.DB(folder, create_if_missing=False)
        except plyvel.Error as error:
            self._remove()
            raise FileError(f'cannot open LevelDB database "{path}": {_text(error)}; write it again') from error
        self._refuse_empty()
        log.info("db_leveldb.cpp:18", f"Opened leveldb {path}")

    def scan(self, start: bytes | None = None) -> Records:
        if self._db.closed:
            raise FileError(f'LevelDB database "{self.path}" has been closed; build the net again to read on')
        try:
            # plyvel's other iterator skips damaged blocks silently
            with closing(self._db.raw_iterator(verify_checksums=True)) as iterator:
                if start is None:
                    iterator.seek_to_first()
                else:
                    iterator.seek(start)
                while iterator.valid():
                    yield iterator.item()
                    iterator.next()
        except self._error as error:
            raise DataError(f'LevelDB database "{self.path}" is damaged: {_text(error)}; write it again') from error

    def close(self) -> None:
        self._db.close()
        self._remove()


class LevelDbWriter(RecordWriter, backend="LEVELDB"):
    """Creates a LevelDB folder, as described in `RecordWriter`, with Caffe's block size."""

    def _open(self, folder: str) -> None:
        plyvel: Any = require_extra("plyvel", "leveldb", f'writing the LevelDB database "{self.path}"')
        self._error = plyvel.Error
        try:
            self._db = plyvel.DB(folder, create_if_missing=True, block_size=1 << 16, write_buffer_size=1 << 26)
        except plyvel.Error as error:
            raise self._refused(error) from error
        log.info("db_leveldb.cpp:18", f"Opened leveldb {self.path}")

    def _write(self, records: Pending) -> None:
        try:
            with self._db.write_batch() as batch:
                for key, value in records:
                    batch.put(key, value)
        except self._error as error:
            raise self._refused(error) from error

    def _close(self) -> None:
        self._db.close()

    def _refused(self, error: Exception) -> FileError:
        return FileError(f'cannot write to LevelDB database "{self.path}": {_text(error)}')


def _check(path: str) -> None:
    refuse_shards(path)
    if not os.path.exists(path):
        raise not_found("LevelDB", path)
    if os.path.exists(os.path.join(path, "data.mdb")):
        raise WrongBackend(f'"{path}" is an LMDB database, not a LevelDB one', "LMDB")
    if not os.path.exists(os.path.join(path, "CURRENT")):
        raise FileError(f'"{path}" is not a LevelDB database: it has no file CURRENT')


def _linked(path: str) -> tuple[str, BinaryIO]:
    """Create a folder of links to the files of the database, without its lock and its log files.

    The folder contains a file that stays locked as long as the process lives.
    """
    folder = tempfile.mkdtemp(prefix=_PREFIX)
    lock = open(os.path.join(folder, _IN_USE), "wb")  # noqa: SIM115 - `_remove` closes it
    with suppress(OSError):  # the file system does not support locks
        files.lock(lock)
    for name in os.listdir(path):
        if name not in ("LOCK", "LOG", "LOG.old"):
            os.symlink(os.path.abspath(os.path.join(path, name)), os.path.join(folder, name))
    return folder, lock


def _remove(folder: str, lock: BinaryIO) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.close()


def _remove_leftovers() -> None:
    """Remove the link folders of processes that were killed."""
    for name in glob.glob(os.path.join(glob.escape(tempfile.gettempdir()), f"{_PREFIX}*", _IN_USE)):
        with suppress(OSError), open(name, "rb") as file:
            files.lock(file)
            shutil.rmtree(os.path.dirname(name), ignore_errors=True)


def _text(error: Exception) -> str:
    text = error.args[0] if error.args else error
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)
