"""Which share of the data this process reads when several processes train together."""

from __future__ import annotations

import os
from typing import NamedTuple

from caffe.errors import DataError

__all__ = ["WHOLE", "Shard", "assign", "count", "current", "divide_batches", "divisor", "rank", "read_as_one"]


class Shard(NamedTuple):
    """Share number `rank` of `size`: the records rank, rank + size, rank + 2 size, ..."""

    rank: int
    size: int

    def place(self, own: int) -> int:
        """Convert the index `own` in this process's batch to the index in the combined batch of all processes."""
        return own * self.size + self.rank


WHOLE = Shard(0, 1)
_NAMES = {"rank": "RANK", "count": "WORLD_SIZE"}
_assigned: dict[str, int] = {}
_divide = False
_readers = 1


def read_as_one(processes: int) -> None:
    """Let groups of this many consecutive processes read the same records, as in a pipeline. 1: each reads its own."""
    global _readers
    _readers = processes


def assign(**numbers: int) -> None:
    """Set `rank` or `count`, or both, overriding the environment."""
    _assigned.update({_NAMES[name]: number for name, number in numbers.items()})


def divide_batches(divide: bool) -> None:
    """Divide the batch size of a TRAIN net by the number of processes, instead of using it in each process."""
    global _divide
    _divide = divide


def divisor() -> int:
    """Return the divisor of batch sizes."""
    return count() if _divide else 1


def rank() -> int:
    """Return the number of this process, or of those that read as one, counted from 0."""
    return _number("RANK", 0)


def count() -> int:
    """Return the number of processes that train together; those that read as one count as one."""
    return _number("WORLD_SIZE", 1)


def current() -> Shard:
    """Return the assigned share, or the one given by torchrun's RANK and WORLD_SIZE.

    Raises DataError if these are invalid.
    """
    shard = Shard(rank(), count())
    if not 0 <= shard.rank < shard.size:
        raise DataError(f"RANK is {shard.rank} and WORLD_SIZE {shard.size}; expected a rank from 0 to size - 1")
    return shard


def _number(name: str, default: int) -> int:
    if name in _assigned:
        return _assigned[name] // _readers
    text = os.environ.get(name, str(default))
    try:
        return int(text) // _readers if name in os.environ else default
    except ValueError:
        raise DataError(f'the environment variable {name} is "{text}", expected a whole number') from None
