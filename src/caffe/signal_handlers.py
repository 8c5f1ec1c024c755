"""Signal handlers that are installed for the duration of a block."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["handling"]


@contextmanager
def handling(
    names: Iterable[str],
    handler: Callable[[int, FrameType | None], None],
    only: Collection[Any] | None = None,
    workers_ignore: Collection[str] = (),
) -> Iterator[None]:
    """Install `handler` for the signals with these names, and restore the previous handlers after the block.

    Signals that the platform does not have are ignored. Outside the main thread nothing is installed, because Python
    delivers signals to the main thread only. With `only`, a signal is left alone unless its handler is one of these.

    A process that is forked within the block, such as the worker of a user's Python layer, handles signals as before
    the block: `Process.terminate()` ends it. It ignores those in `workers_ignore`, which a terminal sends to all of its
    processes although this one still needs its workers.
    """
    numbers = [signal.Signals[name] for name in names if name in signal.Signals.__members__]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.getsignal(number) for number in numbers}
    changed = {number: old for number, old in before.items() if only is None or old in only}
    owner = os.getpid()

    def act(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            handler(number, frame)
        elif signal.Signals(number).name not in workers_ignore:
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)

    for number in changed:
        signal.signal(number, act)
    try:
        yield
    finally:
        for number, old in changed.items():
            signal.signal(number, old)
