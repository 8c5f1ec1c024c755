"""HDF5 files: file lists, and the arrays in the files."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np

from caffe import log
from caffe.data.pipeline.prefetch import Arrays
from caffe.data.streams.rows import same_rows
from caffe.errors import CaffeError, DataError, FileError
from caffe.proto import files, hdf5

__all__ = ["read_arrays", "read_file_list"]


def read_file_list(path: str) -> list[str]:
    """Read the names of HDF5 files from a list, separated by white space or line ends."""
    log.info("hdf5_data_layer.cpp:81", f"Loading list of HDF5 filenames from: {path}")
    lines = files.lines(path, "HDF5 file list")
    if lines and lines[0].startswith("\udc89HDF"):
        raise FileError(f'"{path}" is an HDF5 file itself; write its name into a text file and give that as the source')
    names = [name for line in lines for name in ([line] if os.path.isfile(line) else line.split())]
    log.info("hdf5_data_layer.cpp:95", f"Number of HDF5 files: {len(names)}")
    if not names:
        raise FileError(f'the HDF5 file list "{path}" is empty; expected a file name on each line')
    return names


def read_arrays(path: str, names: list[str]) -> Arrays:
    """Read the datasets of a file as float32 arrays with the same number of rows."""
    if not os.path.isfile(path):
        raise FileError(f'HDF5 file "{path}" not found (from {os.getcwd()})')
    try:
        import h5py

        with h5py.File(path, "r", locking=False) as file:
            arrays = tuple(_dataset(file, path, name) for name in names)
    except hdf5.DAMAGE as error:
        if isinstance(error, CaffeError):
            raise
        raise FileError(f'failed opening HDF5 file "{path}": {error}; copy or write it again') from error
    same_rows(path, names, arrays)
    return arrays


def _dataset(file: Any, path: str, name: str) -> np.ndarray:
    found = None if file.get(name, getlink=True) is None else hdf5.member(file, name)
    import h5py

    if not isinstance(found, h5py.Dataset):
        raise DataError(f'"{path}" has no dataset "{name}" (it has: {", ".join(sorted(file))}); tops name the datasets')
    if found.dtype.kind not in "fiub":
        raise DataError(f'"{path}": dataset "{name}" holds {found.dtype}, expected numbers')
    data = hdf5.dataset(file, name, "fiub")
    if not data.ndim:
        raise DataError(f'"{path}": dataset "{name}" is a single number, expected rows')
    _log_class(data.dtype.kind == "f")
    return np.ascontiguousarray(data, np.float32)


@cache  # once per process, as in Caffe
def _log_class(floating: bool) -> None:
    place, name = ("hdf5.cpp:33", "H5T_FLOAT") if floating else ("hdf5.cpp:36", "H5T_INTEGER")
    log.info(place, f"Datatype class: {name}")
