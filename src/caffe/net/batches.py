"""Feeds arrays to a net, in batches if there are many rows. The functions with `self` are methods of `Net`.

The last batch is padded with zeros, and the results for the padding are dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Protocol

import numpy as np

from caffe.blob import Blob
from caffe.errors import InputError, did_you_mean

__all__ = ["batch_rows", "feed", "forward_all", "forward_backward_all"]

Arrays = dict[str, Any]  # of arrays: mypy takes those in ** for `blobs`, too


class RunsBatches(Protocol):
    """The part of a net that these functions use."""

    inputs: list[str]
    outputs: list[str]
    blobs: OrderedDict[str, Blob]

    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> Arrays: ...

    def backward(
        self, diffs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> Arrays: ...


def forward_all(self: RunsBatches, blobs: Sequence[str] | None = None, **kwargs: Any) -> Arrays:
    """Run all rows of the inputs given as keyword arguments, batch by batch.

    Returns the outputs and the blobs named in `blobs`, each as one array for all rows.
    """
    _check_given("forward_all", kwargs, self.inputs)
    wanted = list(dict.fromkeys([*self.outputs, *(blobs or [])]))
    kept: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    for batch in batch_rows(self, kwargs):
        _keep(kept, self.forward(blobs=blobs, **batch))
    return _rows(kept, kwargs)


def forward_backward_all(
    self: RunsBatches, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None, **kwargs: Any
) -> tuple[Arrays, Arrays]:
    """Run all rows forward and backward, batch by batch.

    Keyword arguments are rows for the data of inputs and the diffs of outputs. Returns two dictionaries: the outputs
    and `blobs`, and the diffs of the inputs and of `diffs`.
    """
    data = {name: rows for name, rows in kwargs.items() if name in self.inputs}
    given = {name: rows for name, rows in kwargs.items() if name in self.outputs}
    if unknown := [name for name in kwargs if name not in data and name not in given]:
        raise InputError(
            f"forward_backward_all was given {unknown}, which are neither inputs {self.inputs} nor outputs "
            f"{self.outputs} of the net"
        )
    _check_given("forward_backward_all", kwargs, [*self.inputs, *self.outputs])
    outs: dict[str, list[np.ndarray]] = {name: [] for name in dict.fromkeys([*self.outputs, *(blobs or [])])}
    grads: dict[str, list[np.ndarray]] = {name: [] for name in dict.fromkeys([*self.inputs, *(diffs or [])])}
    nothing: Arrays = {}
    for there, back in zip_longest(batch_rows(self, data), batch_rows(self, given), fillvalue=nothing):
        _keep(outs, self.forward(blobs=blobs, **there))
        _keep(grads, self.backward(diffs=diffs, **back))
    return _rows(outs, kwargs), _rows(grads, kwargs)


def feed(net: RunsBatches, call: str, names: Sequence[str], arrays: Mapping[str, Any], diff: bool = False) -> None:
    """Write one array to the data, or with `diff` to the diff, of each of the blobs `names`."""
    if set(arrays) != set(names):
        kind, unknown = "outputs" if diff else "inputs", [name for name in arrays if name not in names]
        hint = did_you_mean(unknown[0], names) if unknown else ""
        raise InputError(
            f"{call} was given {sorted(arrays)}, but the net has the {kind} {sorted(names)}: name each{hint}"
        )
    for name, value in arrays.items():
        array, blob = np.asarray(value), net.blobs[name]
        if array.shape[:1] != blob.shape[:1]:
            fact = f'{call}: "{name}" was given {array.shape[:1]} rows, the blob has {blob.shape[:1]}'
            raise InputError(fact).at(shape=array.shape)
        try:
            (blob.diff if diff else blob.data)[...] = array
        except ValueError:
            fact = f'{call}: "{name}" was given an array of shape {array.shape}, the blob has {blob.shape}'
            raise InputError(fact).at(shape=array.shape) from None


def _check_given(call: str, arrays: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise InputError if no rows are given, since nothing would run."""
    if not any(np.ndim(rows) and len(rows) for rows in arrays.values()):
        raise InputError(f"{call} was given no rows; give arrays by the names {list(names)}, or call net.forward()")


def batch_rows(self: RunsBatches, rows: Mapping[str, Any]) -> Iterator[Arrays]:
    """Split the rows into batches of the net's batch size, the last padded with zeros."""
    arrays = {name: np.asarray(value) for name, value in rows.items()}
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"the inputs must have equal numbers of rows, but have {counts}")
    if not arrays:
        return
    size, count = next(iter(self.blobs.values())).shape[0], next(iter(counts.values()))
    for first in range(0, count, size):
        batch = {name: array[first : first + size] for name, array in arrays.items()}
        missing = max(0, first + size - count)
        yield {name: _padded(array, missing) if missing else array for name, array in batch.items()}


def _keep(kept: dict[str, list[np.ndarray]], results: Arrays) -> None:
    for name, arrays in kept.items():
        arrays.append(np.atleast_1d(results[name]).copy())


def _rows(kept: dict[str, list[np.ndarray]], given: Mapping[str, Any]) -> Arrays:
    """Join the kept batches to one array each, without the padding rows."""
    count = len(next(iter(given.values()))) if given else None
    joined = {name: np.concatenate(arrays) for name, arrays in kept.items() if arrays}
    return {name: array[:count] for name, array in joined.items()}


def _padded(array: np.ndarray, missing: int) -> np.ndarray:
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
