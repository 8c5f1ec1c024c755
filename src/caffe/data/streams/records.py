"""Batches of Datum records from a database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any, Protocol

import numpy as np

from caffe import log
from caffe.data.databases.base import Bytes, RecordSource, show_key
from caffe.data.pipeline.prefetch import State
from caffe.data.pipeline.rng import generator
from caffe.data.pipeline.transformer import BatchTransformer
from caffe.data.streams.decoding import Picture, PictureStream

__all__ = ["RecordStream"]

_SKIP = 1  # random stream


class Reader(Protocol):
    """Decodes a record to its image and label."""

    def __call__(self, value: Bytes) -> tuple[np.ndarray, Any]: ...

    def knows(self, value: Bytes) -> bool: ...


class RecordStream(PictureStream):
    """Transformed images and labels of `batch_size` records at a time, in key order, endlessly."""

    def __init__(
        self,
        source: RecordSource,
        read: Reader,
        transformer: BatchTransformer,
        batch_size: int,
        rand_skip: int = 0,
    ) -> None:
        super().__init__(transformer, batch_size)
        self.source = source
        self.read = read
        self.rand_skip = rand_skip

    def start(self, seed: int) -> State:
        skip = 0
        if self.rand_skip:
            skip = int(generator(seed, 0, _SKIP).integers(self.rand_skip))
            log.info("data_layer.cpp:52", f"Skipping first {skip} data points.")
        with closing(self.source.records()) as records:
            key, _ = next(islice(records, skip, None))
        return {"seed": seed, "batch": 0, "key": key.hex(), "skipped": 0}

    def count(self) -> int:
        return self.source.count()

    def fault(self, state: State) -> str:
        fault, key = super().fault(state), state["key"]
        if fault:
            return fault
        try:
            start = bytes.fromhex(key)
        except (TypeError, ValueError):
            return f"key is {str(key)[:50]}, expected hexadecimal digits"
        with closing(self.source.scan(start)) as records:  # a key that no longer exists is replaced by the next one
            next(records, None)
        return ""

    def pictures(self, state: State) -> Iterator[tuple[State, Picture]]:
        with closing(self.source.records(bytes.fromhex(state["key"]))) as records:
            for key, value in records:
                place = {"key": key.hex()}
                if self.shard.rank:
                    key, value = next(islice(records, self.shard.rank - 1, None))
                name = f'"{self.source.path}": record {show_key(key)}'
                yield place, Picture(name, partial(self.read, value), not self.read.knows(value))
                for _ in islice(records, self.shard.size - self.shard.rank - 1):
                    pass

    def close(self) -> None:
        super().close()
        self.source.close()
