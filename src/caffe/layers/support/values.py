"""Whether the values of a tensor exist, and whether `forward` may look at them now."""

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
    """Whether x's values exist: not those of meta tensors, under FakeTensorMode, or while `forward` is written down as
    a graph. Without values, only the tops' shapes are wanted."""
    return not (is_exported() or torch.compiler.is_compiling() or type(x) not in (Tensor, nn.Parameter) or x.is_meta)


def can_look(x: Tensor) -> bool:
    """Whether x's values may be read on the host to check them: they exist, and no CUDA graph is being recorded.

    A layer that cannot do without the values declares `Effects.VALUES`, and is never recorded.
    """
    return has_values(x) and not is_recorded()


def untraced(function: Function) -> Function:
    """The function, which needs values; torch.compile runs it as it is, between the parts that it compiles.

    torch.compiler.disable takes a second to import, so it is used where the caller is being compiled only.
    """
    made: Function = torch.compiler.disable(function) if torch.compiler.is_compiling() else function
    return made


def is_recorded() -> bool:
    """Whether a CUDA graph of the pass is being recorded: operators may run later only, and then without this code."""
    return _recorded or (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing())


@contextmanager
def recording() -> Iterator[None]:
    """Have `is_recorded` hold."""
    global _recorded
    _recorded = True
    try:
        yield
    finally:
        _recorded = False


def is_exported() -> bool:
    """Whether `forward` is being written down for a reader that knows torch's own operators only.

    That is another engine, or the program that `torch.export` or `torch.jit.trace` makes.
    """
    return _exported or torch.compiler.is_exporting() or torch.jit.is_tracing()


def sizes(x: Tensor) -> tuple[int, ...]:
    """x's shape as whole numbers, for geometry: `torch.jit.trace` lets `x.shape` be tensors, which it follows."""
    return tuple(int(size) for size in x.shape) if torch.jit.is_tracing() else x.shape


@contextmanager
def exported() -> Iterator[None]:
    """Have `is_exported` hold."""
    global _exported
    _exported = True
    try:
        yield
    finally:
        _exported = False
