"""LMDB databases: reading, as the Data layer does, and writing, as convert_imageset does."""

from __future__ import annotations

import os
import threading
from weakref import WeakValueDictionary

import lmdb

from caffe import log
from caffe.data.databases.base import Records, RecordSource, WrongBackend, not_found
from caffe.data.databases.writer import Pending, RecordWriter
from caffe.errors import DataError, FileError

__all__ = ["Lmdb", "LmdbWriter"]

_OPEN: WeakValueDictionary[tuple[int, int], lmdb.Environment] = WeakValueDictionary()
_OPENING = threading.Lock()


class Lmdb(RecordSource, backend="LMDB"):
    """An LMDB folder, opened without a lock file, so that a read-only disk will do.

    The library refuses to open a database twice in one process; a TRAIN and a TEST net on the same folder share it.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._env: lmdb.Environment | None = _environment(path)
        self._refuse_empty()
        log.info("db_lmdb.cpp:35", f"Opened lmdb {path}")

    def count(self) -> int:
        return self._environment.stat()["entries"]

    @property
    def _environment(self) -> lmdb.Environment:
        if self._env is None:
            raise FileError(f'LMDB database "{self.path}" has been closed; build the net again to read on')
        return self._env

    def scan(self, start: bytes | None = None) -> Records:
        try:
            with self._environment.begin(buffers=True) as transaction, transaction.cursor() as cursor:
                if start is not None and not cursor.set_range(start):
                    return
                for key, value in cursor:
                    yield bytes(key), value
        except lmdb.Error as error:
            raise DataError(f'LMDB database "{self.path}" is damaged: {error}; write it again') from error

    def close(self) -> None:
        self._env = None  # the last user of a shared environment closes it


class LmdbWriter(RecordWriter, backend="LMDB"):
    """A new LMDB folder, as `RecordWriter` tells; the memory map grows as needed."""

    def _open(self, folder: str) -> None:
        self._env: lmdb.Environment | None = None
        try:
            self._env = lmdb.open(folder, map_size=1 << 26, lock=False, sync=False, metasync=False)
        except lmdb.Error as error:
            raise self._refused(error) from error
        log.info("db_lmdb.cpp:35", f"Opened lmdb {self.path}")

    def _write(self, records: Pending) -> None:
        assert self._env is not None
        while True:
            try:
                with self._env.begin(write=True) as transaction:
                    for key, value in records:
                        transaction.put(key, value)
            except lmdb.MapFullError:
                self._env.set_mapsize(2 * self._env.info()["map_size"])
            except lmdb.Error as error:
                raise self._refused(error) from error
            else:
                return

    def _close(self) -> None:
        if self._env is None:
            return
        environment, self._env = self._env, None
        try:
            environment.sync(True)
        except lmdb.Error as error:
            raise self._refused(error) from error
        finally:
            environment.close()

    def _refused(self, error: lmdb.Error) -> FileError:
        return FileError(f'cannot write to LMDB database "{self.path}": {error}')


def _environment(path: str) -> lmdb.Environment:
    """The environment of a folder: the one that is open already, or a new one."""
    file = _data_file(path)
    with _OPENING:
        status = os.stat(file)
        identity = (status.st_dev, status.st_ino)
        environment = _OPEN.get(identity)
        if environment is None:
            try:
                environment = lmdb.open(path, readonly=True, lock=False, create=False)
            except lmdb.Error as error:
                raise FileError(f'cannot open "{path}" as an LMDB database: {error}') from error
            _refuse_truncated(environment, path, status.st_size)
            _OPEN[identity] = environment
    return environment


def _data_file(path: str) -> str:
    """`path`/data.mdb, or an error that tells what the path is instead."""
    file = os.path.join(path, "data.mdb")
    if not os.path.exists(path):
        raise not_found("LMDB", path)
    if not os.path.isdir(path):
        raise FileError(f'LMDB database "{path}" is a file; give the folder that holds its data.mdb')
    if os.path.exists(os.path.join(path, "CURRENT")) and not os.path.exists(file):
        raise WrongBackend(f'"{path}" is a LevelDB database, not an LMDB one', "LEVELDB")
    if not os.path.exists(file):
        raise FileError(f'"{path}" is not an LMDB database: it has no file data.mdb')
    if not os.access(file, os.R_OK):
        raise FileError(f'LMDB database "{path}": no permission to read data.mdb')
    if not os.path.getsize(file):
        raise FileError(f'LMDB database "{path}" is damaged: data.mdb is empty; copy or write it again')
    return file


def _refuse_truncated(environment: lmdb.Environment, path: str, size: int) -> None:
    """A read beyond the end of a mapped file would kill the process, so the file must hold every page it counts."""
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if size < needed:
        environment.close()
        raise FileError(
            f'LMDB database "{path}" is truncated: data.mdb has {size} bytes of {needed}; copy or write it again'
        )
