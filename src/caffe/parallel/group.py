"""The interface of a group of processes that train together. A single process is a group of size one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor

__all__ = ["ALONE", "Alone", "Group", "Member", "Pending", "current", "joined"]

Value = TypeVar("Value")


class Pending(ABC):
    """A sum over the processes that was started and has not finished yet."""

    @abstractmethod
    def wait(self) -> None:
        """Wait until the tensor contains the sum. Raises ParallelError if a process is lost."""


class Group(ABC):
    """The processes that train together. Every process must make the same calls in the same order.

    `rank` is the number of this process and `size` the number of processes. Each call raises ParallelError if another
    process is lost or does not answer within the time limit.
    """

    rank: int
    size: int

    @abstractmethod
    def start_sum(self, values: Tensor) -> Pending:
        """Start to sum a contiguous tensor over the processes, in place."""

    @abstractmethod
    def send(self, tensors: Iterable[Tensor]) -> None:
        """Copy the tensors of process 0 to the others, in place."""

    @abstractmethod
    def gather(self, value: Value) -> list[Value]:
        """Return the values of all processes, by rank. A value can be any object that pickle supports."""

    @abstractmethod
    def share(self, value: Value) -> Value:
        """Return the value of process 0."""

    @abstractmethod
    def fail(self, error: BaseException) -> None:
        """Tell the other processes why this process is about to end. Does not wait."""

    def repeats_first(self, error: BaseException) -> bool:
        """Whether process 0, which is another one of the same machine, has failed by the same error."""
        return False

    @abstractmethod
    def leave(self) -> None:
        """Close the connections."""

    def sum(self, values: Tensor) -> None:
        """Sum a contiguous tensor over the processes, in place."""
        self.start_sum(values).wait()


class Member(ABC):
    """An object that provides a group, where pycaffe's scripts pass a communication object to a solver and a net."""

    group: Group


class _Done(Pending):
    def wait(self) -> None:
        pass


class Alone(Group):
    """The group of a single process: all calls return their arguments."""

    rank, size = 0, 1

    def start_sum(self, values: Tensor) -> Pending:
        return _Done()

    def send(self, tensors: Iterable[Tensor]) -> None:
        pass

    def gather(self, value: Value) -> list[Value]:
        return [value]

    def share(self, value: Value) -> Value:
        return value

    def fail(self, error: BaseException) -> None:
        pass

    def leave(self) -> None:
        pass


ALONE = Alone()
_groups: list[Group] = [ALONE]


def current() -> Group:
    """Return the group used by new solvers, and by layers that use the batches of all processes."""
    return _groups[-1]


@contextmanager
def joined(group: Group) -> Iterator[None]:
    """Use `group` as the current group in the block. If the block raises an error, the other processes are notified."""
    _groups.append(group)
    try:
        yield
    except BaseException as error:
        group.fail(error)
        raise
    finally:
        _groups.remove(group)
