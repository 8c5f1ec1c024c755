"""Numbers below 1.2e-38 as zero in backward: processors take up to a hundred times as long for them.

Gradients that shrink from layer to layer, such as those behind a layer whose weights begin at zero, make convolutions
add up such numbers. Forward keeps them, so that the values of blobs are those of the original.
"""

from __future__ import annotations

import functools
from types import TracebackType

import numpy as np
import torch

__all__ = ["FlushedDenormals", "flush_in_worker_threads"]

_DENORMAL, _ONE = np.full(1, 1e-40, np.float32), np.ones(1, np.float32)
_PARALLEL = 1 << 18  # elements that torch shares among its threads


class FlushedDenormals:
    """A context in which the calling thread takes denormal numbers as zero."""

    def __enter__(self) -> None:
        self._before = _flushed()
        torch.set_flush_denormal(True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch.set_flush_denormal(self._before)


@functools.cache
def flush_in_worker_threads() -> None:
    """Have torch's worker threads flush denormals. They take the setting of the thread that starts them, once.

    Nothing changes where the threads run already.
    """
    if torch.get_num_threads() > 1:
        with FlushedDenormals():
            torch.ones(_PARALLEL).add_(1)


def _flushed() -> bool:
    return not bool((_DENORMAL * _ONE)[0])
