"""Gradients of Caffe that deliberately differ from the derivative of `forward`, and their gradient check."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["exact_gradients", "is_exact", "tell"]

_facts: set[str] | None = None


def is_exact() -> bool:
    """Whether backward must compute the exact derivative of `forward`, without Caffe's deviations."""
    return _facts is not None


def tell(fact: str) -> None:
    """Report to the gradient check that Caffe's gradient deviates from the derivative. `fact` says where."""
    if _facts is not None:
        _facts.add(fact)


@contextmanager
def exact_gradients() -> Iterator[set[str]]:
    """A context in which `is_exact` is true. Yields the set of facts that layers report with `tell`."""
    global _facts
    before, _facts = _facts, set()
    try:
        yield _facts
    finally:
        _facts = before
