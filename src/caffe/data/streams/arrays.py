"""Files of numpy arrays: .npz and .npy."""

from __future__ import annotations

import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from caffe.data.pipeline.prefetch import Arrays
from caffe.data.streams.rows import same_rows
from caffe.errors import DataError, FileError

__all__ = ["DAMAGE", "read_npy", "read_npz"]


DAMAGE = (
    *(ValueError, EOFError, zipfile.BadZipFile, zlib.error, tokenize.TokenError, SyntaxError),
    *(LookupError, TypeError, ArithmeticError, NotImplementedError, MemoryError, RecursionError),
)
"""Exceptions besides OSError that numpy raises for a damaged .npy or .npz file, whose header is a Python expression."""


def read_npz(path: str, names: list[str]) -> Arrays:
    """Read the arrays of these names from an .npz file. They must have the same number of rows."""
    with _errors(path, "an .npz file"), open(path, "rb") as stream:
        file = np.load(stream, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise FileError(f'"{path}" is an .npy file: give one such file for each top, or an .npz file')
        for name in names:
            if name not in file:
                known = ", ".join(sorted(file)) or "nothing"
                raise DataError(f'"{path}" has no array "{name}" (it has: {known}); tops name the arrays')
        arrays = tuple(_rows(path, name, file[name]) for name in names)
    same_rows(path, names, arrays)
    return arrays


def read_npy(paths: list[str], names: list[str]) -> Arrays:
    """Read one .npy file per name, memory-mapped. The arrays must have the same number of rows."""
    arrays = []
    for path, name in zip(paths, names, strict=True):
        with _errors(path, "an .npy file"):
            arrays.append(_rows(path, name, np.lib.format.open_memmap(path, mode="r")))
    same_rows(", ".join(paths), names, tuple(arrays))
    return tuple(arrays)


@contextmanager
def _errors(path: str, kind: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileError(f'cannot open "{path}": {error.strerror or error} (from {os.getcwd()})') from error
    except DAMAGE as error:
        raise FileError(f'"{path}" is not {kind}, or damaged: {error}') from error


def _rows(path: str, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise DataError(f'"{path}": array "{name}" holds {array.dtype}, expected numbers')
    if not array.ndim:
        raise DataError(f'"{path}": array "{name}" is a single number, expected rows')
    return array
