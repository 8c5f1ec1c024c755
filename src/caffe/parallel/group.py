"""A group of processes that train together, as training sees it; a process by itself is a group of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor

__all__ = ["ALONE", "Alone", "Group", "Member", "Pending", "current", "joined"]

Value = TypeVar("Value")


class Pending(ABC):
    """A sum over the processes that has started and not yet finished."""

    @abstractmethod
    def wait(self) -> None:
        """Return when the tensor holds the sum. Raises ParallelError where a process is lost."""


class Group(ABC):
    """The processes that train together. Every process must make the same calls in the same order.

    `rank` is the number of this process and `size` the number of processes. Each call raises ParallelError where
    another process is lost or does not answer within the limit.
    """

    rank: int
    size: int

    @abstractmethod
    def start_sum(self, values: Tensor) -> Pending:
        """Begin to add up a contiguous tensor over the processes, in place."""

    @abstractmethod
    def send(self, tensors: Iterable[Tensor]) -> None:
        """Copy the tensors of process 0 into those of the others, in place."""

    @abstractmethod
    def gather(self, value: Value) -> list[Value]:
        """The values of all processes, by rank. A value is anything that pickle takes."""

    @abstractmethod
    def share(self, value: Value) -> Value:
        """The value of process 0."""

    @abstractmethod
    def fail(self, error: BaseException) -> None:
        """Tell the others why this process is about to end; returns at once."""

    @abstractmethod
    def leave(self) -> None:
        """Close the connections."""

    def sum(self, values: Tensor) -> None:
        """Add up a contiguous tensor over the processes, in place."""
        self.start_sum(values).wait()


class Member(ABC):
    """What stands for a group where pycaffe's scripts give a solver and a net something to reduce gradients with."""

    group: Group


class _Done(Pending):
    def wait(self) -> None:
        pass


class Alone(Group):
    """The group of one process: all calls return what they were given."""

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
    """The group that new solvers, and layers that look at the batches of all processes, belong to."""
    return _groups[-1]


@contextmanager
def joined(group: Group) -> Iterator[None]:
    """Make `group` the current one in the block. Other processes hear of an error that ends the block."""
    _groups.append(group)
    try:
        yield
    except BaseException as error:
        group.fail(error)
        raise
    finally:
        _groups.remove(group)
