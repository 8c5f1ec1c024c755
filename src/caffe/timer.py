"""Timer: pycaffe's stopwatch."""

from __future__ import annotations

import time

__all__ = ["Timer"]


class Timer:
    """A stopwatch: `start()`, `stop()`, and `ms`, the milliseconds between them, or since `start` while it runs."""

    def __init__(self) -> None:
        self._begin = 0.0
        self._end: float | None = 0.0

    def start(self) -> None:
        """Start measuring, after waiting for pending GPU work."""
        _finish_gpu_work()
        self._begin, self._end = time.perf_counter(), None

    def stop(self) -> None:
        """Stop measuring, after waiting for pending GPU work."""
        _finish_gpu_work()
        if self._end is None:
            self._end = time.perf_counter()

    @property
    def ms(self) -> float:
        """Milliseconds."""
        end = time.perf_counter() if self._end is None else self._end
        return (end - self._begin) * 1e3


def _finish_gpu_work() -> None:
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
