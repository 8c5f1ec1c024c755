"""LMDB databases: reading for the Data layer, writing for convert_imageset."""

from __future__ import annotations

import os

import lmdb

from caffe import log
from caffe.data.databases.base import Records, RecordSource, WrongBackend, not_found, refuse_shards, show_key
from caffe.data.databases.lmdb_file import Damage, DataFile
from caffe.data.databases.writer import Pending, RecordWriter
from caffe.errors import DataError, FileError

__all__ = ["Lmdb", "LmdbWriter"]


class Lmdb(RecordSource, backend="LMDB"):
    """An LMDB folder, read by this package's own code without a lock file, so it can be on a read-only disk.

    Each page is checked when it is read. A damaged page raises a DataError, whereas the LMDB library would abort the
    process.
    """

    @classmethod
    def fits(cls, path: str) -> bool:
        return os.path.exists(os.path.join(path, "data.mdb"))

    def __init__(self, path: str) -> None:
        super().__init__(path)
        name = _data_file(path)
        try:
            self._file: DataFile | None = DataFile(name)
        except (Damage, OSError) as error:
            raise FileError(f'cannot open "{path}" as an LMDB database: {error}; copy or write it again') from error
        _refuse_truncated(self._file, path)
        self._refuse_empty()
        log.info("db_lmdb.cpp:35", f"Opened lmdb {path}")

    def count(self) -> int:
        return self._opened().meta.entries

    def scan(self, start: bytes | None = None) -> Records:
        file = self._opened()
        last = b""
        try:
            for record in file.records(start):
                last = record[0]
                yield record
        except (Damage, OSError) as error:
            place = f" after record {show_key(last)}" if last else ""
            fact = f'LMDB database "{self.path}" is damaged{place}: data.mdb: {error}'
            raise DataError(f"{fact}; copy or write it again") from error

    def close(self) -> None:
        self._file = None  # closed by the last scan

    def _opened(self) -> DataFile:
        if self._file is None:
            raise FileError(f'LMDB database "{self.path}" has been closed; build the net again to read on')
        return self._file


class LmdbWriter(RecordWriter, backend="LMDB"):
    """Creates an LMDB folder, as described in `RecordWriter`. The memory map grows as needed."""

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


def _data_file(path: str) -> str:
    """Return `path`/data.mdb; raises an error that says what the path is instead."""
    file = os.path.join(path, "data.mdb")
    refuse_shards(path)
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


def _refuse_truncated(file: DataFile, path: str) -> None:
    """Raise an error at opening if the file is shorter than its number of pages, instead of after hours of training."""
    needed = (file.meta.last_page + 1) * file.meta.page_size
    if file.size < needed:
        fact = f"data.mdb has {file.size} bytes of {needed}"
        raise FileError(f'LMDB database "{path}" is truncated: {fact}; copy or write it again')
