"""Batches of rows from array files."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from caffe.data.pipeline.prefetch import Arrays, State, Stream
from caffe.data.pipeline.rng import generator
from caffe.data.pipeline.transformer import BatchTransformer
from caffe.errors import DataError

__all__ = ["RowStream", "same_rows"]

_FILES, _ROWS = 0, 1  # random streams: the order of the files; from here on, the order of the rows in each file
_CROPS = 1 << 48
_PROCESSES = 1 << 16  # offset for the start rows of more processes, which can lie beyond the end of a file


class RowStream(Stream):
    """`batch_size` rows at a time of the arrays called `names`, from all files in turn, endlessly.

    `read` loads the arrays of a file. With `shuffle`, each pass has its own order of files and of rows in each file.
    One file is in memory at a time. With a `transformer`, the first array holds images (rows, C, H, W).
    """

    def __init__(
        self,
        files: list[str],
        names: list[str],
        batch_size: int,
        shuffle: bool,
        read: Callable[[str, list[str]], Arrays],
        transformer: BatchTransformer | None = None,
    ) -> None:
        self.files = files
        self.names = names
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.read = read
        self.transformer = transformer
        self._shapes: list[tuple[int, ...]] = []
        self._loaded: tuple[str, Arrays] | None = None
        self._order: tuple[tuple[int, int, int], np.ndarray] | None = None

    def count(self) -> int:
        return sum(len(self.read(path, self.names)[0]) for path in self.files)

    def start(self, seed: int) -> State:
        return {"seed": seed, "batch": 0, "pass": 0, "file": 0, "row": 0}

    def fault(self, state: State) -> str:
        fault, place, row = super().fault(state), state["file"], state["row"]
        if fault:
            return fault
        if place >= len(self.files):
            return f"file is {place}, but there are {len(self.files)} files"
        path = self._path(state["seed"], state["pass"], place)
        loaded = self._loaded
        arrays = loaded[1] if loaded is not None and loaded[0] == path else self.read(path, self.names)
        if row >= len(arrays[0]) + _PROCESSES:
            return f'row is {row}, but "{path}" has {len(arrays[0])} rows'
        return ""

    def shapes(self, state: State) -> list[tuple[int, ...]]:
        arrays = self._file(state["seed"], state["pass"], state["file"])
        shapes = [array.shape[1:] for array in arrays]
        if self.transformer is not None:
            shapes[0] = self.transformer.top_shape(shapes[0])
        return [(self.batch_size, *shape) for shape in shapes]

    def batch(self, state: State) -> tuple[Arrays, State]:
        finish, state = self.begin(state)
        return finish(), state

    def begin(self, state: State) -> tuple[Callable[[], Arrays], State]:
        tops, after = self._rows_at(state)
        if self.transformer is None:
            return lambda: tops, after
        rng = generator(state["seed"], state["batch"], _CROPS)
        batch = self.transformer.batch(self.batch_size, rng, self.shard)
        for number, image in enumerate(tops[0]):
            try:
                use = self.shard.place(number)
                batch.add(*self.transformer.varied(image, 0, state["seed"], state["batch"], use))
            except DataError as error:
                raise DataError(f"an image {error}") from error
        return lambda: (batch.finish()[0], *tops[1:]), after

    def _rows_at(self, state: State) -> tuple[Arrays, State]:
        """Return the rows of one batch and the next state. The first array keeps its dtype if it will be
        transformed.
        """
        seed, passes, place, row = state["seed"], state["pass"], state["file"], state["row"]
        first = self._file(seed, passes, place)
        kinds: list[type] = [np.float32] * len(first)
        if self.transformer is not None and first[0].dtype == np.uint8:
            kinds[0] = np.uint8
        tops = tuple(
            np.empty((self.batch_size, *array.shape[1:]), kind) for array, kind in zip(first, kinds, strict=True)
        )
        filled, left, first_own, step = 0, self.batch_size * self.shard.size, self.shard.rank, self.shard.size
        while left:  # rows of the combined batch of all processes; this process takes every `step`-th
            arrays = self._file(seed, passes, place)
            total = len(arrays[0])
            take = min(left, total - row)
            rows: np.ndarray | slice = slice(row + first_own, row + take, step)
            own = len(range(first_own, take, step))
            if self.shuffle:
                rows = self._rows(seed, passes, place, total)[rows]
            for top, array in zip(tops, arrays, strict=True):
                top[filled : filled + own] = array[rows]
            filled, left, row, first_own = filled + own, left - take, row + take, (first_own - take) % step
            if row >= total:
                place, row = place + 1, 0
                if place == len(self.files):
                    passes, place = passes + 1, 0
        return tops, {"seed": seed, "batch": state["batch"] + 1, "pass": passes, "file": place, "row": row}

    def _file(self, seed: int, passes: int, place: int) -> Arrays:
        """Return the arrays of the file at position `place` in this pass."""
        path = self._path(seed, passes, place)
        if self._loaded is None or self._loaded[0] != path:
            self._loaded = None
            arrays = self.read(path, self.names)
            shapes = [array.shape[1:] for array in arrays]
            if shapes != (self._shapes or shapes):
                raise DataError(f'"{path}": rows have shapes {shapes}, but those of the first file {self._shapes}')
            self._loaded, self._shapes = (path, arrays), shapes
        return self._loaded[1]

    def _path(self, seed: int, passes: int, place: int) -> str:
        """Return the path of the file at position `place` in this pass."""
        if self.shuffle:
            place = int(generator(seed, passes, _FILES).permutation(len(self.files))[place])
        return self.files[place]

    def _rows(self, seed: int, passes: int, place: int, total: int) -> np.ndarray:
        if self._order is None or self._order[0] != (seed, passes, place):
            order = generator(seed, passes, _ROWS + place).permutation(total)
            self._order = (seed, passes, place), order
        return self._order[1]


def same_rows(path: str, names: list[str], arrays: Arrays) -> None:
    """Raise DataError unless the arrays have the same number of rows, at least one."""
    rows = {name: len(array) for name, array in zip(names, arrays, strict=True)}
    if len(set(rows.values())) > 1:
        raise DataError(f'"{path}": datasets differ in their number of rows: {rows}')
    if not rows[names[0]]:
        raise DataError(f'"{path}": datasets have no rows; remove the file from the list')
