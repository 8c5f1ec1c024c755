"""Shared by streams of images: parallel decoding, transformation, and skipping of damaged images."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from caffe import log
from caffe.data.pipeline.pool import cores
from caffe.data.pipeline.prefetch import Arrays, State, Stream
from caffe.data.pipeline.rng import generator
from caffe.data.pipeline.transformer import Batch, BatchTransformer
from caffe.errors import DataError

__all__ = ["Picture", "PictureStream"]

_CROPS = 0  # random stream of the transformation; subclasses use others
_HOPELESS = 1000  # number of consecutive damaged images after which the stream raises an error
_TOGETHER = 8  # images that a thread takes at once if they need no decoding
_TOLD = 20  # damaged images that get a log line of their own

Loaded = tuple[np.ndarray, Any]
Placed = tuple[np.ndarray, Any, int]
"""An image, its label, and its index in the batch if its pixels are there already, or else -1."""


class Picture(NamedTuple):
    """An image to load: its name in messages, the function that loads it, and whether that should run in a thread."""

    name: str
    load: Callable[[], Loaded]
    heavy: bool = True


class PictureStream(Stream):
    """Transformed images and their labels, `batch_size` at a time.

    Subclasses yield the images, one for each position that the stream can continue from. The images are decoded by
    `workers` threads (0: one per processor); the order and the random numbers do not depend on the threads. An image
    that cannot be used is an error or, with `skip`, skipped and counted in `skipped` of the state. With several
    processes, a process that skips an image takes its next one earlier, and takes that one again in the next batch, so
    that the positions of all processes stay in step.
    """

    def __init__(self, transformer: BatchTransformer, batch_size: int) -> None:
        self.transformer = transformer
        self.batch_size = batch_size
        self.workers = 0
        self.skip = False
        self._top: tuple[int, ...] = ()
        self._pool: ThreadPoolExecutor | None = None

    @abstractmethod
    def pictures(self, state: State) -> Iterator[tuple[State, Picture]]:
        """Yield this process's images from `state` on, endlessly, each with its position in the state.

        The position is that of process 0's image; the positions of the other processes follow from it.
        """

    def shapes(self, state: State) -> list[tuple[int, ...]]:
        for number, (_, picture) in enumerate(self.pictures(state)):
            try:
                image, label = picture.load()
                shape = self.transformer.top_shape(self.transformer.resized_shape(image.shape))
                self._top = shape
                return [(self.batch_size, *shape), self.transformer.label_shape(self.batch_size, label, shape)]
            except DataError as error:
                self._refuse(picture, error, number)
        raise AssertionError("pictures come without end")

    def batch(self, state: State) -> tuple[Arrays, State]:
        finish, state = self.begin(state)
        return finish(), state

    def begin(self, state: State) -> tuple[Callable[[], Arrays], State]:
        seed, number = state["seed"], state["batch"]
        batch = self.transformer.batch(self.batch_size, generator(seed, number, _CROPS), self.shard)
        skipped = in_row = tried = 0
        pictures = self.pictures(state)
        places: list[State] = []
        try:
            while len(batch.places) < self.batch_size:
                found = list(islice(pictures, self.batch_size - len(batch.places)))
                places += [place for place, _ in found]
                chunk = [picture for _, picture in found]
                for picture, load in self._loading(chunk, batch, seed, number, tried):
                    try:
                        batch.add(*load())
                        in_row = 0
                    except DataError as error:
                        skipped, in_row = skipped + 1, in_row + 1
                        self._refuse(picture, error, in_row, state["skipped"] + skipped)
                tried += len(chunk)
            places.append(next(pictures)[0])
        finally:
            pictures.close()  # type: ignore[attr-defined]
        place = places[-1 if self.shard.size == 1 else self.batch_size]
        return batch.finish, {**state, **place, "batch": number + 1, "skipped": state["skipped"] + skipped}

    def after(self, state: State, count: int) -> State:
        if self.skip or not count:
            return super().after(state, count)
        pictures = self.pictures(state)
        try:
            place, _ = next(islice(pictures, count * self.batch_size, None))
        finally:
            pictures.close()  # type: ignore[attr-defined]
        return {**state, **place, "batch": state["batch"] + count}

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _loading(
        self, chunk: list[Picture], batch: Batch, seed: int, number: int, tried: int
    ) -> Iterator[tuple[Picture, Callable[[], Placed]]]:
        """Yield each image with a function that returns it, or raises its error, in their order.

        Threads decode the images, and crop and normalize them if the batch is large enough.
        """
        first = len(batch.places)

        def load(index: int) -> Placed:
            picture = chunk[index]
            use = self.shard.place(tried + index)
            image, label = self.transformer.varied(*picture.load(), seed, number, use)
            return image, label, batch.place(first + index, image)

        def loads(indices: range) -> list[Callable[[], Placed]]:
            return [_outcome(load, index) for index in indices]

        workers = self.workers or cores()
        slow = chunk[0].heavy or self.transformer.augmented or self.transformer.reshaping
        if workers == 1 or not (slow or self.transformer.direct(self._top)):
            for index, picture in enumerate(chunk):
                yield picture, partial(load, index)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(workers, thread_name_prefix="caffe data decoder")
        begin, step = (0, 1) if slow else (1, _TOGETHER)
        if begin:  # images that need no decoding would be ready before the first has decided the shape of the batch
            yield chunk[0], partial(load, 0)
        groups = [range(start, min(start + step, len(chunk))) for start in range(begin, len(chunk), step)]
        futures = deque(self._pool.submit(loads, group) for group in groups)
        try:
            for group in groups:
                for index, outcome in zip(group, futures.popleft().result(), strict=True):
                    yield chunk[index], outcome
        finally:  # a closed source must not be read further
            for future in futures:
                future.cancel()
            wait(futures)

    def _refuse(self, picture: Picture, error: DataError, in_row: int, total: int = 1) -> None:
        """Raise the error of an image, or log it if damaged images are skipped."""
        if not self.skip:
            raise DataError(f"{picture.name} {error}") from error
        if in_row >= _HOPELESS:
            raise DataError(f"{picture.name} {error}; so are the {in_row} before it") from error
        if total <= _TOLD:
            more = "; further ones are not reported" if total == _TOLD else ""
            log.warning("data_layer.cpp", f"{picture.name} {error}: skipped ({total} so far{more})")


def _outcome(load: Callable[[int], Placed], index: int) -> Callable[[], Placed]:
    """Load an image; returns a function that returns it or raises its error."""
    try:
        loaded = load(index)
    except DataError as error:
        return partial(_raise, error)
    return lambda: loaded


def _raise(error: DataError) -> Placed:
    raise error
