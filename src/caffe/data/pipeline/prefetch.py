"""Streams of batches, and the thread that reads them ahead."""

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
_MOST = 1 << 62  # what no number of a state reaches: the largest seed
_POLL = 0.2  # seconds after which a waiting thread looks whether the other end is still there


class Stream(ABC):
    """An endless sequence of batches, each a function of a state.

    The state is a small dict that JSON can hold, the seed among it. As nothing else decides what a batch contains, a
    run that continues from a state gets the batches it would have got, random crops included. Of several processes
    that train together, each reads its share.
    """

    shard: Shard = WHOLE

    @abstractmethod
    def start(self, seed: int) -> State:
        """The state before the first batch."""

    @abstractmethod
    def shapes(self, state: State) -> list[tuple[int, ...]]:
        """The shapes of the arrays of the batch at `state`, without reading all of it."""

    @abstractmethod
    def batch(self, state: State) -> tuple[Arrays, State]:
        """The batch at `state` and the state after it; DataError names the record that cannot be used."""

    def begin(self, state: State) -> tuple[Callable[[], Arrays], State]:
        """As `batch`, but the arrays are still to be finished, by a function that any thread may call."""
        arrays, state = self.batch(state)
        return lambda: arrays, state

    def after(self, state: State, count: int) -> State:
        """The state `count` batches after `state`."""
        for _ in range(count):
            _, state = self.begin(state)
        return state

    def fault(self, state: State) -> str:
        """Why the stream cannot go on from a state that something else may have written; empty where it can.

        What holds of every stream: its numbers are whole and at least 0. May be called while another thread reads.
        """
        for name, value in state.items():
            if name != "key" and (type(value) is not int or not 0 <= value < _MOST):
                return f"{name} is {str(value)[:50]}, expected a whole number of at least 0"
        return ""

    def count(self) -> int:
        """The number of records in one pass over the data, or 0 where only reading them all would tell."""
        return 0

    def close(self) -> None:  # noqa: B027  most streams hold nothing open
        """Let go of files."""


class Dealt(Stream):
    """Every `step`-th batch of a stream, the first after passing over `ahead` of them; states are the stream's own."""

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
    """Keeps up to `depth` batches of a stream ready: one thread reads, a second finishes what the first began.

    `prepare` turns finished arrays into what `next` returns. An error in a thread is raised by `next` in its turn,
    after the batches before it. The threads end with `close`, when the prefetcher is collected, or with the
    interpreter.
    """

    def __init__(
        self, stream: Stream, state: State, depth: int, name: str = "", prepare: Callable[[Arrays], Ready] = _as_it_is
    ) -> None:
        self._ready: queue.Queue[tuple[Future[Ready], State] | Exception] = queue.Queue(depth)
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._pid = os.getpid()
        target = (stream, state, prepare, self._ready, self._stop)  # not self: the thread must not keep it alive
        self._thread = threading.Thread(target=_read_ahead, args=target, name=f"caffe data {name}", daemon=True)
        _RUNNING[self._thread] = self._stop
        weakref.finalize(self, self._stop.set).atexit = False
        self._thread.start()

    def next(self) -> tuple[Ready, State]:
        """The next batch and the state after it."""
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
        """Stop the thread and wait for its end; what was read ahead is dropped."""
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
            except BaseException as error:  # the thread was told to end: the consumer must hear of it, not end itself
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
    """End every reader before the interpreter takes its modules away."""
    running = [(thread, stop) for thread, stop in _RUNNING.items() if thread.is_alive()]
    for _, stop in running:
        stop.set()
    for thread, _ in running:
        thread.join(10)
