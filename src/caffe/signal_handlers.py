"""Signal handlers that are installed for the duration of a block."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["handling"]


@contextmanager
def handling(
    names: Iterable[str], handler: Callable[[int, FrameType | None], None], only: Collection[Any] | None = None
) -> Iterator[None]:
    """Install `handler` for the signals with these names, and restore the previous handlers after the block.

    Signals that the platform does not have are ignored. Outside the main thread nothing is installed, because Python
    delivers signals to the main thread only. With `only`, a signal is left alone unless its handler is one of these.
    """
    numbers = [signal.Signals[name] for name in names if name in signal.Signals.__members__]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.getsignal(number) for number in numbers}
    changed = {number: old for number, old in before.items() if only is None or old in only}
    for number in changed:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in changed.items():
            signal.signal(number, old)
