"""Where Caffe's gradient is not the slope of `forward`, on purpose, and how the gradient check learns of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["exact_gradients", "is_exact", "tell"]

_facts: set[str] | None = None


def is_exact() -> bool:
    """Whether the gradient is to be the slope of `forward` itself, without the deviations that Caffe has."""
    return _facts is not None


def tell(fact: str) -> None:
    """Tell the gradient check that Caffe's gradient deviates from the slope at these values, and where."""
    if _facts is not None:
        _facts.add(fact)


@contextmanager
def exact_gradients() -> Iterator[set[str]]:
    """Have `is_exact` hold; yields the set that gathers what layers `tell`."""
    global _facts
    before, _facts = _facts, set()
    try:
        yield _facts
    finally:
        _facts = before
