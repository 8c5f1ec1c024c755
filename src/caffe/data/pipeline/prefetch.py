"""Streams of batches, and the thread that prefetches them."""

from __future__ import annotations

import atexit
import os
import queue
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numpy as np

from caffe.data.pipeline.shard import WHOLE, Shard
from caffe.errors import DataError

__all__ = ["Arrays", "Dealt", "Prefetcher", "State", "Stream"]

State = dict[str, Any]
Arrays = tuple[np.ndarray, ...]
Ready = TypeVar("Ready")
_MOST = 1 << 62  # the largest seed; no number in a state is larger
_POLL = 0.2  # seconds between checks of a waiting thread whether the other side still exists


class Stream(ABC):
    """An endless sequence of batches, where each batch is a function of a state.

    The state is a small JSON-compatible dict that includes the seed. A batch depends on nothing else. A run that
    continues from a state therefore gets the same batches as an uninterrupted run, including random crops. If several
    processes train together, each reads its own share.
    """

    shard: Shard = WHOLE

    @abstractmethod
    def start(self, seed: int) -> State:
        """Return the state of the first batch."""

    @abstractmethod
    def shapes(self, state: State) -> list[tuple[int, ...]]:
        """Return the shapes of the arrays of the batch at `state`, reading as little as possible."""

    @abstractmethod
    def batch(self, state: State) -> tuple[Arrays, State]:
        """Return the batch at `state` and the next state. A DataError names the record that cannot be used."""

    def begin(self, state: State) -> tuple[Callable[[], Arrays], State]:
        """Like `batch`, but returns a function that finishes the arrays and that any thread may call."""
        arrays, state = self.batch(state)
        return lambda: arrays, state

    def after(self, state: State, count: int) -> State:
        """Return the state `count` batches after `state`."""
        for _ in range(count):
            _, state = self.begin(state)
        return state

    def fault(self, state: State) -> str:
        """Return why the stream cannot continue from a state read from a file; an empty string if it can.

        This method makes the general check: all numbers are whole and at least 0. It can be called while another thread
        reads.
        """
        for name, value in state.items():
            if name != "key" and (type(value) is not int or not 0 <= value < _MOST):
                return f"{name} is {str(value)[:50]}, expected a whole number of at least 0"
        return ""

    def count(self) -> int:
        """Return the number of records in one pass over the data, or 0 if only a full scan could count them."""
        return 0

    def close(self) -> None:  # noqa: B027  most streams hold nothing open
        """Close the files."""


class Dealt(Stream):
    """Every `step`-th batch of a stream, after skipping `ahead` batches. The states are those of the stream."""

    def __init__(self, stream: Stream, ahead: int, step: int) -> None:
        self._stream, self._ahead, self._step = stream, ahead, step

    def start(self, seed: int) -> State:
        return self._stream.start(seed)

    def shapes(self, state: State) -> list[tuple[int, ...]]:
        return self._stream.shapes(state)

    def batch(self, state: State) -> tuple[Arrays, State]:
        finish, state = self.begin(state)
        return finish(), state

    def begin(self, state: State) -> tuple[Callable[[], Arrays], State]:
        made = self._stream.begin(self._stream.after(state, self._ahead))
        self._ahead = self._step - 1
        return made


def _as_it_is(arrays: Any) -> Any:
    return arrays


class Prefetcher(Generic[Ready]):
    """Keeps up to `depth` batches of a stream ready. One thread begins batches, a second thread finishes them.

    `prepare` converts finished arrays to the result of `next`. If a thread fails, `next` raises the error after the
    batches before it. The threads end with `close`, when the prefetcher is garbage-collected, or when the interpreter
    exits.
    """

    def __init__(
        self, stream: Stream, state: State, depth: int, name: str = "", prepare: Callable[[Arrays], Ready] = _as_it_is
    ) -> None:
        self._ready: queue.Queue[tuple[Future[Ready], State] | Exception] = queue.Queue(depth)
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._pid = os.getpid()
        target = (stream, state, prepare, self._ready, self._stop)  # not self, because the thread would keep it alive
        self._thread = threading.Thread(target=_read_ahead, args=target, name=f"caffe data {name}", daemon=True)
        _RUNNING[self._thread] = self._stop
        weakref.finalize(self, self._stop.set).atexit = False
        self._thread.start()

    def next(self) -> tuple[Ready, State]:
        """Return the next batch and the state after it."""
        if os.getpid() != self._pid:
            raise DataError("the process was forked after reading had begun; build the net after the fork")
        if self._stop.is_set():
            raise DataError("reading was stopped; build the net again to read on")
        while self._error is None:
            try:
                item = self._ready.get(timeout=_POLL)
            except queue.Empty:
                if not self._thread.is_alive() and self._ready.empty():
                    self._error = DataError("the thread that reads ahead is gone; build the net again to read on")
                continue
            try:
                if not isinstance(item, Exception):
                    return item[0].result(), item[1]
                self._error = item
            except Exception as error:
                self._error = error
        raise self._error

    def close(self) -> None:
        """Stop the threads and wait until they end. Prefetched batches are discarded."""
        self._stop.set()
        if os.getpid() != self._pid:
            return
        while self._thread.is_alive():
            while not self._ready.empty():
                self._ready.get_nowait()
            self._thread.join(_POLL)


def _read_ahead(
    stream: Stream, state: State, prepare: Callable[[Arrays], Ready], ready: queue.Queue, stop: threading.Event
) -> None:
    item: tuple[Future[Ready], State] | Exception
    with ThreadPoolExecutor(1, thread_name_prefix="caffe data finisher") as finisher:
        while not stop.is_set():
            try:
                finish, state = stream.begin(state)
                item = finisher.submit(_finish, finish, prepare), state
            except Exception as error:
                item = error
            except BaseException as error:  # also an exit in the thread: the consumer must not wait forever
                item = DataError(
                    f"the thread that reads ahead was ended by {type(error).__name__}; build the net again"
                )
            while not stop.is_set():
                try:
                    ready.put(item, timeout=_POLL)
                    break
                except queue.Full:
                    pass
            if isinstance(item, Exception):
                return


def _finish(finish: Callable[[], Arrays], prepare: Callable[[Arrays], Ready]) -> Ready:
    return prepare(finish())


_RUNNING: weakref.WeakKeyDictionary[threading.Thread, threading.Event] = weakref.WeakKeyDictionary()


@atexit.register
def _stop_all() -> None:
    """Stop all prefetchers before the interpreter unloads modules."""
    running = [(thread, stop) for thread, stop in _RUNNING.items() if thread.is_alive()]
    for _, stop in running:
        stop.set()
    for thread, _ in running:
        thread.join(10)
