"""Files of numpy arrays: .npz and .npy."""

from __future__ import annotations

import os
import zipfile
import zlib

import numpy as np

from caffe.data.prefetch import Arrays
from caffe.data.rows import same_rows
from caffe.errors import DataError, FileError

__all__ = ["read_npy", "read_npz"]


def read_npz(path: str, names: list[str]) -> Arrays:
    """The arrays of these names in an .npz file, with the same number of rows."""
    with _opened(path, "an .npz file") as file:
        if isinstance(file, np.ndarray):
            raise FileError(f'"{path}" is an .npy file: give one such file for each top, or an .npz file')
        for name in names:
            if name not in file:
                known = ", ".join(sorted(file)) or "nothing"
                raise DataError(f'"{path}" has no array "{name}" (it has: {known}); tops name the arrays')
        try:
            arrays = tuple(_rows(path, name, file[name]) for name in names)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise FileError(f'cannot read "{path}": {error}; write it again') from error
    same_rows(path, names, arrays)
    return arrays


def read_npy(paths: list[str], names: list[str]) -> Arrays:
    """One .npy file for each name, read as needed, with the same number of rows."""
    arrays = []
    for path, name in zip(paths, names, strict=True):
        array = _opened(path, "an .npy file", "r")
        if not isinstance(array, np.ndarray):
            raise FileError(
                f'"{path}" is an .npz file, which holds all tops; give nothing but .npz files, or .npy ones'
            )
        arrays.append(_rows(path, name, array))
    same_rows(", ".join(paths), names, tuple(arrays))
    return tuple(arrays)


def _opened(path: str, kind: str, mode: str | None = None) -> np.ndarray | np.lib.npyio.NpzFile:
    try:
        return np.load(path, mmap_mode=mode, allow_pickle=False)
    except OSError as error:
        raise FileError(f'cannot open "{path}": {error.strerror or error} (from {os.getcwd()})') from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise FileError(f'"{path}" is not {kind}, or damaged: {error}') from error


def _rows(path: str, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise DataError(f'"{path}": array "{name}" holds {array.dtype}, expected numbers')
    if not array.ndim:
        raise DataError(f'"{path}": array "{name}" is a single number, expected rows')
    return array
