"""Writers for extract_features: one record or row per image."""

from __future__ import annotations

import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from caffe.data.databases.writer import RecordWriter, create_database
from caffe.errors import DataError, FileError, did_you_mean
from caffe.proto import files
from caffe.proto.caffe_pb2 import Datum

__all__ = ["FeatureWriter", "open_features"]


class FeatureWriter(ABC):
    """Writes feature arrays (N, ...). `count` is the number of rows written."""

    count = 0

    def add(self, rows: np.ndarray) -> None:
        """Write the rows of one batch."""
        self._write(rows)
        self.count += len(rows)

    @abstractmethod
    def _write(self, rows: np.ndarray) -> None: ...


class _Records(FeatureWriter):
    """Float Datum records with a number as key."""

    def __init__(self, writer: RecordWriter) -> None:
        self.writer = writer

    def _write(self, rows: np.ndarray) -> None:
        if not 1 <= rows.ndim <= 4:
            raise DataError(f"a record holds 3 axes, but the features of an image have {rows.ndim - 1}; use hdf5")
        channels, height, width = (*rows.shape[1:], 1, 1, 1)[:3]
        for number, row in enumerate(rows.reshape(len(rows), -1), self.count):
            datum = Datum(channels=channels, height=height, width=width, float_data=row.tolist())
            self.writer.put(b"%010d" % number, datum.SerializeToString())


class _Hdf5(FeatureWriter):
    """A dataset of an HDF5 file."""

    def __init__(self, file: h5py.File, name: str) -> None:
        self.file = file
        self.name = name

    def _write(self, rows: np.ndarray) -> None:
        if self.name not in self.file:
            self.file.create_dataset(self.name, (0, *rows.shape[1:]), "f4", maxshape=(None, *rows.shape[1:]))
        dataset = self.file[self.name]
        dataset.resize(self.count + len(rows), axis=0)
        dataset[self.count :] = rows


class _Memory(FeatureWriter):
    """Collects rows in memory and writes them at the end."""

    def __init__(self) -> None:
        self.rows: list[np.ndarray] = []

    def _write(self, rows: np.ndarray) -> None:
        self.rows.append(rows.copy())


@contextmanager
def open_features(kind: str, path: str, name: str) -> Iterator[FeatureWriter]:
    """Open a writer for the features of blob `name`; `kind` is lmdb, leveldb, hdf5 or npz.

    Raises FileError if `path` exists.
    """
    known = ("lmdb", "leveldb", "hdf5", "npz")
    if kind not in known:
        raise FileError(f'unknown kind of dataset "{kind}"{did_you_mean(kind, known)} (known: {", ".join(known)})')
    if os.path.exists(path):
        raise FileError(f'"{path}" exists already; remove it or choose another name')
    if kind in ("lmdb", "leveldb"):
        with create_database(kind, path) as writer:
            yield _Records(writer)
    elif kind == "hdf5":
        with _hdf5(path) as file:
            yield _Hdf5(file, name)
    else:
        memory = _Memory()
        yield memory
        with (
            files.atomic(path) as out,
            zipfile.ZipFile(out, "w") as archive,
            archive.open(f"{name}.npy", "w") as member,
        ):
            np.lib.format.write_array(member, np.concatenate(memory.rows))


@contextmanager
def _hdf5(path: str) -> Iterator[h5py.File]:
    """Create an HDF5 file, which gets its final name when it is complete."""
    target = Path(path)
    part = target.with_name(f".{target.name}.part")
    try:
        with h5py.File(part, "w") as file:
            yield file
        os.replace(part, target)
    except OSError as error:
        raise FileError(f'cannot write the HDF5 file "{path}": {error}') from error
    finally:
        part.unlink(missing_ok=True)
