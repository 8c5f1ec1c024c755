"""Side effects of a layer's `forward`, and how to repeat a run without them."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Effects", "RandomState", "buffers_of", "copy_of_buffers", "put_back_buffers", "repeating"]


class Effects(enum.Flag):
    """Side effects of `forward`, beyond computing the tops from the bottoms and blobs.

    A layer class declares them as `effects`. Code that records, compiles, exports, skips or repeats a layer checks
    them.
    """

    NONE = 0
    """No side effects: equal bottoms and blobs give equal tops, and the number of calls does not matter."""
    RANDOM = enum.auto()
    """Draws random numbers from torch's generators. A CUDA graph draws new numbers at each replay."""
    BUFFERS = enum.auto()
    """Updates its buffers in place, such as running statistics. A CUDA graph repeats this at each replay."""
    CHECKS = enum.auto()
    """Reads values on the host to check them, if `can_look` of `caffe.layers.support.values` allows it."""
    VALUES = enum.auto()
    """Requires values on the host, for instance because the shapes of the tops depend on them."""
    CALLS = enum.auto()
    """Any other side effect of a call: it keeps state outside of buffers, reads the next batch, writes a file, or runs
    code that is not torch's."""

    @property
    def needs_calls(self) -> bool:
        """Whether each run must call the Python code, so that a recorded graph of torch operators cannot replace it."""
        return bool(self & (Effects.VALUES | Effects.CALLS))

    @property
    def lasting(self) -> bool:
        """Whether a run can influence later runs."""
        return bool(self & (Effects.BUFFERS | Effects.CALLS))


@dataclass(frozen=True)
class RandomState:
    """The states of all random generators that layers use: torch's, numpy's and, if CUDA is in use, the GPU's."""

    cpu: Tensor
    cuda: Tensor | None
    numpy: Any

    @classmethod
    def now(cls) -> Self:
        """Read the current states."""
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
        return cls(torch.get_rng_state(), cuda, np.random.get_state())

    def restore(self) -> None:
        """Reset the generators to these states, so that they draw the same numbers again."""
        torch.set_rng_state(self.cpu)
        np.random.set_state(self.numpy)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda)


Held = list[tuple[dict[str, Tensor | None], dict[str, Tensor | None]]]
"""Buffers and the modules that hold them, with the saved tensors."""


@contextmanager
def repeating(
    layer: nn.Module, effects: Effects, random: RandomState | None = None, buffers: Held | None = None
) -> Iterator[None]:
    """A context in which `forward` uses copies of the layer's buffers and starts from the generator states `random`.

    `buffers`, from `copy_of_buffers`, replace the current ones. Buffers and generators are restored at the end.
    Autograd's history of such a run stays valid, since it refers to the copies. Side effects of the kind
    `Effects.CALLS` are not prevented.
    """
    draws = bool(effects & (Effects.RANDOM | Effects.CALLS))
    before = RandomState.now() if draws else None
    held = buffers_of(layer)
    try:
        for store, tensors in held:
            store.update({name: None if x is None else x.clone() for name, x in tensors.items()})
        for store, tensors in buffers or []:
            store.update({name: None if x is None else x.clone() for name, x in tensors.items()})
        if random is not None and draws:
            random.restore()
        yield
    finally:
        put_back_buffers(held)
        if before is not None:
            before.restore()


def buffers_of(*layers: nn.Module) -> Held:
    """The current buffers of the layers."""
    return [(part._buffers, dict(part._buffers)) for layer in layers for part in layer.modules() if part._buffers]


def copy_of_buffers(layer: nn.Module) -> Held:
    """Copies of the current buffers of the layer."""
    return [
        (store, {name: None if x is None else x.clone() for name, x in tensors.items()})
        for store, tensors in buffers_of(layer)
    ]


def put_back_buffers(held: Held) -> bool:
    """Set these tensors as the modules' buffers again. Returns whether any buffer had been replaced."""
    changed = False
    for store, tensors in held:
        if store.keys() != tensors.keys() or any(store[name] is not x for name, x in tensors.items()):
            changed = True
            store.clear()
            store.update(tensors)
    return changed
