"""Batches of rows from HDF5 files."""

from __future__ import annotations

import os
from functools import cache

import h5py
import numpy as np

from caffe import log
from caffe.data.prefetch import Arrays, State, Stream
from caffe.data.rng import generator
from caffe.errors import DataError, FileError

__all__ = ["Hdf5Stream", "read_file_list"]

_FILES, _ROWS = 0, 1  # uses of random numbers: the order of the files, and from here on of the rows of each file


class Hdf5Stream(Stream):
    """`batch_size` rows at a time of the datasets called `names`, through the files in turn, over and over.

    With `shuffle`, each pass has its own order of the files and of the rows in each. One file is in memory at a time.
    """

    def __init__(self, files: list[str], names: list[str], batch_size: int, shuffle: bool = False) -> None:
        self.files = files
        self.names = names
        self.batch_size = batch_size
        self.shuffle = shuffle
        self._shapes: list[tuple[int, ...]] = []
        self._loaded: tuple[str, Arrays] | None = None
        self._order: tuple[tuple[int, int, int], np.ndarray] | None = None

    def start(self, seed: int) -> State:
        return {"seed": seed, "pass": 0, "file": 0, "row": 0}

    def shapes(self, state: State) -> list[tuple[int, ...]]:
        arrays = self._file(state["seed"], state["pass"], state["file"])
        return [(self.batch_size, *array.shape[1:]) for array in arrays]

    def batch(self, state: State) -> tuple[Arrays, State]:
        tops = tuple(np.empty(shape, np.float32) for shape in self.shapes(state))
        seed, passes, place, row = state["seed"], state["pass"], state["file"], state["row"]
        filled = 0
        while filled < self.batch_size:
            arrays = self._file(seed, passes, place)
            total = len(arrays[0])
            take = min(self.batch_size - filled, total - row)
            rows: np.ndarray | slice = slice(row, row + take)
            if self.shuffle:
                rows = self._rows(seed, passes, place, total)[rows]
            for top, array in zip(tops, arrays, strict=True):
                top[filled : filled + take] = array[rows]
            filled, row = filled + take, row + take
            if row >= total:
                place, row = place + 1, 0
                if place == len(self.files):
                    passes, place = passes + 1, 0
        return tops, {**state, "pass": passes, "file": place, "row": row}

    def _file(self, seed: int, passes: int, place: int) -> Arrays:
        """The arrays of the file that comes at `place` in this pass."""
        if self.shuffle:
            place = int(generator(seed, passes, _FILES).permutation(len(self.files))[place])
        path = self.files[place]
        if self._loaded is None or self._loaded[0] != path:
            self._loaded = None
            arrays = _read(path, self.names)
            shapes = [array.shape[1:] for array in arrays]
            if shapes != (self._shapes or shapes):
                raise DataError(f'"{path}": rows have shapes {shapes}, but those of the first file {self._shapes}')
            self._loaded, self._shapes = (path, arrays), shapes
        return self._loaded[1]

    def _rows(self, seed: int, passes: int, place: int, total: int) -> np.ndarray:
        if self._order is None or self._order[0] != (seed, passes, place):
            order = generator(seed, passes, _ROWS + place).permutation(total)
            self._order = (seed, passes, place), order
        return self._order[1]


def read_file_list(path: str) -> list[str]:
    """The names of HDF5 files in a list: one a line, or several with white space between them."""
    log.info("hdf5_data_layer.cpp:81", f"Loading list of HDF5 filenames from: {path}")
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.strip() for line in file]
    except OSError as error:
        raise FileError(f'cannot open the HDF5 file list "{path}": {error.strerror} (from {os.getcwd()})') from error
    except ValueError as error:
        raise FileError(f'"{path}" is not a list of HDF5 files: {error}') from error
    if lines and lines[0].startswith("\udc89HDF"):
        raise FileError(f'"{path}" is an HDF5 file itself; write its name into a text file and give that as the source')
    names = [name for line in lines for name in ([line] if os.path.isfile(line) else line.split())]
    log.info("hdf5_data_layer.cpp:95", f"Number of HDF5 files: {len(names)}")
    if not names:
        raise FileError(f'the HDF5 file list "{path}" is empty; expected a file name on each line')
    return names


def _read(path: str, names: list[str]) -> Arrays:
    """The datasets of a file as float32 arrays with the same number of rows."""
    if not os.path.isfile(path):
        raise FileError(f'HDF5 file "{path}" not found (from {os.getcwd()})')
    try:
        with h5py.File(path, "r", locking=False) as file:
            arrays = tuple(_dataset(file, path, name) for name in names)
    except OSError as error:
        raise FileError(f'failed opening HDF5 file "{path}": {error}') from error
    rows = {name: len(array) for name, array in zip(names, arrays, strict=True)}
    if len(set(rows.values())) > 1:
        raise DataError(f'"{path}": datasets differ in their number of rows: {rows}')
    if not rows[names[0]]:
        raise DataError(f'"{path}": datasets have no rows; remove the file from the list')
    return arrays


def _dataset(file: h5py.File, path: str, name: str) -> np.ndarray:
    data = file.get(name)
    if not isinstance(data, h5py.Dataset):
        raise DataError(f'"{path}" has no dataset "{name}" (it has: {", ".join(sorted(file))}); tops name the datasets')
    if data.dtype.kind not in "fiub":
        raise DataError(f'"{path}": dataset "{name}" holds {data.dtype}, expected numbers')
    if not data.ndim:
        raise DataError(f'"{path}": dataset "{name}" is a single number, expected rows')
    _log_class(data.dtype.kind == "f")
    return np.ascontiguousarray(data[...], np.float32)


@cache  # once in a process, as Caffe has it
def _log_class(floating: bool) -> None:
    place, name = ("hdf5.cpp:33", "H5T_FLOAT") if floating else ("hdf5.cpp:36", "H5T_INTEGER")
    log.info(place, f"Datatype class: {name}")
