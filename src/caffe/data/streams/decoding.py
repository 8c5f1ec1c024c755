"""What streams of images share: decoding in parallel, transformation, and passing over damaged images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from caffe import log
from caffe.data.pipeline.pool import cores
from caffe.data.pipeline.prefetch import Arrays, State, Stream
from caffe.data.pipeline.rng import generator
from caffe.data.pipeline.transformer import BatchTransformer
from caffe.errors import DataError

__all__ = ["Picture", "PictureStream"]

_CROPS = 0  # use of random numbers; others are the subclasses'
_HOPELESS = 1000  # damaged images in a row after which no good one is expected
_TOLD = 20  # damaged images that are named in the log, each

Loaded = tuple[np.ndarray, Any]


class Picture(NamedTuple):
    """An image that can be loaded: how messages call it, how it is loaded, and whether that is worth a thread."""

    name: str
    load: Callable[[], Loaded]
    heavy: bool = True


class PictureStream(Stream):
    """Transformed images and their labels, `batch_size` at a time.

    A subclass tells which pictures come, one for each place that it can continue from. They are decoded by `workers`
    threads (0: one a processor); the order and the random numbers do not depend on the threads. A picture that cannot
    be used is an error, or with `skip` passed over and counted: `skipped` of the state tells how many were. Of several
    processes one that skips takes its next picture earlier, which it takes again in the next batch: the places of all
    stay together.
    """

    def __init__(self, transformer: BatchTransformer, batch_size: int) -> None:
        self.transformer = transformer
        self.batch_size = batch_size
        self.workers = 0
        self.skip = False
        self._pool: ThreadPoolExecutor | None = None

    @abstractmethod
    def pictures(self, state: State) -> Iterator[tuple[State, Picture]]:
        """This process's pictures from `state` on without end, each with what of the state is its place.

        A place is that of the picture of process 0, from which those of the other processes follow.
        """

    def shapes(self, state: State) -> list[tuple[int, ...]]:
        for number, (_, picture) in enumerate(self.pictures(state)):
            try:
                image, label = picture.load()
                shape = self.transformer.top_shape(self.transformer.resized_shape(image.shape))
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
                for picture, load in self._loading(chunk, seed, number, tried):
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
        self, chunk: list[Picture], seed: int, number: int, tried: int
    ) -> Iterator[tuple[Picture, Callable[[], Loaded]]]:
        """Each picture with a function that returns it or raises its error; where that helps, loaded in parallel."""

        def load(index: int, picture: Picture) -> Loaded:
            return self.transformer.varied(*picture.load(), seed, number, self.shard.place(index))

        workers = self.workers or cores()
        if workers == 1 or not (chunk[0].heavy or self.transformer.augmented or self.transformer.reshaping):
            for index, picture in enumerate(chunk, tried):
                yield picture, partial(load, index, picture)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(workers, thread_name_prefix="caffe data decoder")
        futures: list[Future[Loaded]] = [
            self._pool.submit(load, index, picture) for index, picture in enumerate(chunk, tried)
        ]
        try:
            for picture, future in zip(chunk, futures, strict=True):
                yield picture, future.result
        finally:  # nobody may read on when the source is closed
            for future in futures:
                future.cancel()
            wait(futures)

    def _refuse(self, picture: Picture, error: DataError, in_row: int, total: int = 1) -> None:
        """Raise the error of a picture, or tell it where damaged ones are skipped."""
        if not self.skip:
            raise DataError(f"{picture.name} {error}") from error
        if in_row >= _HOPELESS:
            raise DataError(f"{picture.name} {error}; so are the {in_row} before it") from error
        if total <= _TOLD:
            more = "; further ones are skipped without a word" if total == _TOLD else ""
            log.warning("data_layer.cpp", f"{picture.name} {error}: skipped ({total} so far{more})")
