"""A sample of the data as the net reads it: batches of the data layers, after the transformations."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from caffe.layers.base import Source
from caffe.layers.data import StreamSource

__all__ = ["Sample", "read_sample"]

_MOST_BYTES, _TIMED = 256 << 20, 5


@dataclass(frozen=True)
class Sample:
    """Arrays by the names of the data layers' tops, one item per row.

    `whole` says whether these are all records of the data. `count` is the number of records in one pass, 0 if unknown.
    `batch` is the number of items per batch, `seconds` the time to read one batch. `work` is the shortest time in which
    one thread makes a batch, infinite if it is unknown.
    """

    arrays: Mapping[str, np.ndarray]
    count: int
    batch: int
    seconds: float
    work: float = math.inf

    @property
    def items(self) -> int:
        return min((len(array) for array in self.arrays.values()), default=0)

    @property
    def whole(self) -> bool:
        return bool(self.count) and self.items >= self.count


def read_sample(net: Any, items: int = 4000, seconds: float = 10.0) -> Sample:
    """Read batches of a net's data layers until there are enough items or the time is up.

    The net cannot be used afterwards.
    """
    sources = [(index, layer) for index, layer in enumerate(net.layers) if isinstance(layer, Source)]
    parts: dict[str, list[np.ndarray]] = {}
    begin, batches, size = time.monotonic(), 0, 0
    counts = [layer.stream.count() for _, layer in sources if isinstance(layer, StreamSource) and layer.stream]
    count, read = max(counts, default=0), 0
    wanted = min(items, count) if count else items
    while sources and read < wanted and size < _MOST_BYTES and (time.monotonic() - begin < seconds or not batches):
        step = 0
        for index, _ in sources:
            net.forward(start=net.layer_names[index], end=net.layer_names[index])
            for top in net.steps[index].tops:
                array = top.data
                if array.ndim:
                    parts.setdefault(top.name, []).append(array.copy())
                    size, step = size + array.nbytes, max(step, len(array))
        batches, read = batches + 1, read + step
        if not step:
            break
    arrays = {name: np.concatenate(each)[: count or None] for name, each in parts.items()}
    spent = time.monotonic() - begin
    return Sample(arrays, count, read // max(1, batches), spent / max(1, batches), _work([each for _, each in sources]))


def _work(sources: Sequence[Source]) -> float:
    """Return the time in which one thread makes a batch of every source, in seconds: the shortest of several runs."""
    total = 0.0
    for layer in sources:
        if not isinstance(layer, StreamSource) or layer.stream is None:
            return math.inf
        layer.seek(layer.position())  # ends the thread that prefetches, which uses the stream
        spans, state = [], layer.state
        for _ in range(_TIMED):
            begin = time.monotonic()
            _, state = layer.stream.batch(state)
            spans.append(time.monotonic() - begin)
        total += min(spans)
    return total
