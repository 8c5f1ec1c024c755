"""A sample of the data as the net reads it: batches of the data layers, after the transformations."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from caffe.layers.base import Source
from caffe.layers.data import StreamSource

__all__ = ["Sample", "read_sample"]

_MOST_BYTES = 256 << 20


@dataclass(frozen=True)
class Sample:
    """Arrays by the names of the data layers' tops, one item per row.

    `whole` says whether these are all records of the data. `count` is the number of records in one pass, 0 if unknown.
    `batch` is the number of items per batch, `seconds` the time to read one batch.
    """

    arrays: Mapping[str, np.ndarray]
    count: int
    batch: int
    seconds: float

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
    return Sample(arrays, count, read // max(1, batches), (time.monotonic() - begin) / max(1, batches))
