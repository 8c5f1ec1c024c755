"""Batches of Datum records from a database."""

from __future__ import annotations

from contextlib import closing
from itertools import islice

import numpy as np

from caffe import log
from caffe.data.datum import DatumReader
from caffe.data.prefetch import Arrays, State, Stream
from caffe.data.rng import generator
from caffe.data.source import RecordSource, show_key
from caffe.data.transformer import Transformer
from caffe.errors import DataError

__all__ = ["RecordStream"]

_CROPS, _SKIP = 0, 1  # uses of random numbers


class RecordStream(Stream):
    """Transformed images and labels of `batch_size` records at a time, in key order, over and over."""

    def __init__(
        self, source: RecordSource, read: DatumReader, transformer: Transformer, batch_size: int, rand_skip: int = 0
    ) -> None:
        self.source = source
        self.read = read
        self.transformer = transformer
        self.batch_size = batch_size
        self.rand_skip = rand_skip

    def start(self, seed: int) -> State:
        skip = 0
        if self.rand_skip:
            skip = int(generator(seed, 0, _SKIP).integers(self.rand_skip))
            log.info("data_layer.cpp:52", f"Skipping first {skip} data points.")
        with closing(self.source.records()) as records:
            key, _ = next(islice(records, skip, None))
        return {"seed": seed, "batch": 0, "key": key.hex()}

    def shapes(self, state: State) -> list[tuple[int, ...]]:
        with closing(self.source.records(bytes.fromhex(state["key"]))) as records:
            key, value = next(records)
            try:
                shape = self.transformer.top_shape(self.read(value)[0].shape)
            except DataError as error:
                raise self._named(key, error) from error
        return [(self.batch_size, *shape), (self.batch_size,)]

    def batch(self, state: State) -> tuple[Arrays, State]:
        batch = self.transformer.batch(self.batch_size, generator(state["seed"], state["batch"], _CROPS))
        labels = np.empty(self.batch_size, np.float32)
        with closing(self.source.records(bytes.fromhex(state["key"]))) as records:
            for index, (key, value) in enumerate(islice(records, self.batch_size)):
                try:
                    image, labels[index] = self.read(value)
                    batch.add(image)
                except DataError as error:
                    raise self._named(key, error) from error
            key, _ = next(records)
        return (batch.finish(), labels), {**state, "batch": state["batch"] + 1, "key": key.hex()}

    def close(self) -> None:
        self.source.close()

    def _named(self, key: bytes, error: DataError) -> DataError:
        return DataError(f'"{self.source.path}": record {show_key(key)} {error}')
