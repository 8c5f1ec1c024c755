"""A parallel map with results in order and a bounded number of pending items."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["cores", "ordered"]

Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 4  # items per worker that are in progress or wait to be fetched


def cores() -> int:
    """Return the number of processors that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ordered(function: Callable[[Item], Result], items: Iterable[Item], workers: int = 0) -> Iterator[Result]:
    """Yield `function(item)` in the order of the items, computed by `workers` threads (0: one per processor).

    Threads help if `function` releases the GIL, as image decoding does. The error of an item is raised when its result
    is due.
    """
    workers = workers or cores()
    if workers == 1:
        yield from map(function, items)
        return
    rest = iter(items)
    with ThreadPoolExecutor(workers, thread_name_prefix="caffe data") as pool:
        waiting: deque[Future[Result]] = deque(pool.submit(function, item) for item in islice(rest, _AHEAD * workers))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()
