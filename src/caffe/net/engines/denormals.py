"""Flushes denormal numbers (below 1.2e-38) to zero in backward. Processors are up to a hundred times slower for them.

They occur in gradients that shrink from layer to layer, for instance if the weights of a layer are initially zero.
Forward does not flush them, so that the values of blobs equal Caffe's.
"""

from __future__ import annotations

import functools
from types import TracebackType

import torch

__all__ = ["FlushedDenormals", "flush_in_worker_threads"]

_DENORMAL, _ONE = 1e-310, 1.0
_PARALLEL = 1 << 18  # elements that torch shares among its threads


class FlushedDenormals:
    """A context in which the calling thread flushes denormal numbers to zero, or with `on=False` does not."""

    def __init__(self, on: bool = True) -> None:
        self._on = on

    def __enter__(self) -> None:
        self._before = _flushed()
        torch.set_flush_denormal(self._on)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch.set_flush_denormal(self._before)


@functools.cache
def flush_in_worker_threads() -> None:
    """Make torch's worker threads flush denormals. They copy the setting of the thread that starts them.

    This has no effect if the threads are already running.
    """
    if torch.get_num_threads() > 1:
        with FlushedDenormals():
            torch.ones(_PARALLEL).add_(1)


def _flushed() -> bool:
    """Whether the calling thread flushes. The setting holds for Python's numbers, too."""
    return _DENORMAL * _ONE == 0
