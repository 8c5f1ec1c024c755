"""Work on a sequence of items in parallel threads, with the results in order and few of them waiting."""

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
_AHEAD = 4  # items for each worker that are under way or wait to be fetched


def cores() -> int:
    """How many processors this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ordered(function: Callable[[Item], Result], items: Iterable[Item], workers: int = 0) -> Iterator[Result]:
    """`function` of each item, in the order of the items, computed by `workers` threads (0: one a processor).

    The threads gain where `function` leaves Python, as decoding does. An error is raised in its item's turn.
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
