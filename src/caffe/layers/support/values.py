"""Whether a tensor has values, and whether `forward` may read them now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Function = TypeVar("Function", bound=Callable[..., Any])

__all__ = ["can_look", "exported", "has_values", "is_exported", "is_recorded", "recording", "sizes"]
__all__ += ["untraced"]

_exported = _recorded = False


def has_values(x: Tensor) -> bool:
    """Whether x has values. False for meta tensors, under FakeTensorMode, and while `forward` is traced or exported:
    only the shapes of the tops are needed then."""
    return not (is_exported() or torch.compiler.is_compiling() or type(x) not in (Tensor, nn.Parameter) or x.is_meta)


def can_look(x: Tensor) -> bool:
    """Whether the host may read x's values to check them: x has values, and no CUDA graph is being recorded.

    A layer that requires the values declares `Effects.VALUES` and is never recorded.
    """
    return has_values(x) and not is_recorded()


def untraced(function: Function) -> Function:
    """Wrap a function that needs values: torch.compile calls it uncompiled, between the compiled parts.

    torch.compiler.disable takes a second to import, so it is used only while the caller is being compiled.
    """
    made: Function = torch.compiler.disable(function) if torch.compiler.is_compiling() else function
    return made


def is_recorded() -> bool:
    """Whether a CUDA graph is being recorded. The operators then run at replay, without this Python code."""
    return _recorded or (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing())


@contextmanager
def recording() -> Iterator[None]:
    """A context in which `is_recorded` is true."""
    global _recorded
    _recorded = True
    try:
        yield
    finally:
        _recorded = False


def is_exported() -> bool:
    """Whether `forward` is being exported, so that it may use only torch's own operators.

    The target is another engine, or a program of `torch.export` or `torch.jit.trace`.
    """
    return _exported or torch.compiler.is_exporting() or torch.jit.is_tracing()


def sizes(x: Tensor) -> tuple[int, ...]:
    """x's shape as Python integers. Under `torch.jit.trace` the sizes in `x.shape` are traced tensors."""
    return tuple(int(size) for size in x.shape) if torch.jit.is_tracing() else x.shape


@contextmanager
def exported() -> Iterator[None]:
    """A context in which `is_exported` is true."""
    global _exported
    _exported = True
    try:
        yield
    finally:
        _exported = False
