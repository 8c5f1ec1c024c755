"""Thread safety of nets: threads run a net one at a time, and not on inputs that another thread has overwritten."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from caffe.blob import Blob
from caffe.errors import NetError
from caffe.memory import Takers

__all__ = ["Turns", "in_turn"]

P = ParamSpec("P")
R = TypeVar("R")


class Turns:
    """The lock of a net. A thread that runs the net waits until no other thread runs it."""

    def __init__(self, name: str, inputs: Sequence[Blob]) -> None:
        self.name, self.inputs = name, inputs
        self.lock = threading.RLock()
        for blob in inputs:
            blob.data_memory.takers = Takers()

    def __reduce__(self) -> tuple[Any, ...]:
        return Turns, (self.name, self.inputs)

    def check_inputs(self) -> None:
        """Raise a NetError if another thread wrote an input after this thread did and before this run."""
        for blob in self.inputs:
            takers = blob.data_memory.takers
            if takers is not None and not takers.run():
                raise NetError(
                    f'net "{self.name}": between the time when this thread took the input "{blob.name}" and this run, '
                    "another thread took it, too, and may have written into it. Make one net for each thread "
                    "(share_with lets them have the same weights), or give the inputs to the run: net.forward(data=...)"
                )


def in_turn(method: Callable[P, R]) -> Callable[P, R]:
    """Decorate a method of a net to wait until no other thread runs the net."""

    @functools.wraps(method)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        net: Any = args[0]
        with net.turns.lock:
            return method(*args, **kwargs)

    return run
