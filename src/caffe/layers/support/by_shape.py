"""What a layer derives from a bottom's shape, kept for the shapes that it saw last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from caffe.layers.support.values import sizes

__all__ = ["ByShape"]

V = TypeVar("V")
_KEPT = 64
"""The number of shapes that are kept."""


class ByShape(Generic[V]):
    """A cache by the shape of a bottom.

        self.windows = ByShape()
        grid = self.windows.of(x, self._grid_for)

    `derive` is called with the shape of x if it is new. It may raise an error, and then nothing is kept. While a layer
    is traced its shapes may be symbolic, and `derive` is called each time.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[Any, V] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return ByShape, ()  # a copied or pickled layer derives the values again

    def of(self, x: Tensor, derive: Callable[[Any], V]) -> V:
        """The value for the shape of x."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return derive(sizes(x))
        shape = x.shape
        value = self._known.get(shape)
        if value is None:
            value = derive(shape)
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[shape] = value
        return value
