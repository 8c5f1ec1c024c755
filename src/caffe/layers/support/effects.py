"""What `forward` of a layer does beside computing its tops, and how to run it again without that."""

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
    """What `forward` does beside computing its tops from its bottoms and blobs.

    A layer class declares this as `effects`. Whoever records, compiles, exports, leaves out or repeats a layer reads
    it.
    """

    NONE = 0
    """Nothing: the same bottoms and blobs give the same tops, and nobody sees how often `forward` ran."""
    RANDOM = enum.auto()
    """Draws random numbers from torch's generators. Repeated by a CUDA graph, with new numbers."""
    BUFFERS = enum.auto()
    """Changes the values of its buffers in place, such as running statistics. Repeated by a CUDA graph."""
    CHECKS = enum.auto()
    """Looks at values on the host, to refuse wrong ones, where `can_look` of `caffe.layers.support.values` says
    that it may."""
    VALUES = enum.auto()
    """Needs values on the host, for instance because the shapes of its tops depend on them."""
    CALLS = enum.auto()
    """Whatever else only a call does: keeps state outside of its buffers, reads the next batch, writes a file, runs
    code other than torch's."""

    @property
    def needs_calls(self) -> bool:
        """Whether Python must run each time, so that no record or graph of torch's operators can stand in."""
        return bool(self & (Effects.VALUES | Effects.CALLS))

    @property
    def lasting(self) -> bool:
        """Whether a later run may see that this one was made."""
        return bool(self & (Effects.BUFFERS | Effects.CALLS))


@dataclass(frozen=True)
class RandomState:
    """The states of the generators that layers draw from: torch's, numpy's and, where CUDA is in use, the GPU's."""

    cpu: Tensor
    cuda: Tensor | None
    numpy: Any

    @classmethod
    def now(cls) -> Self:
        """The present states."""
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
        return cls(torch.get_rng_state(), cuda, np.random.get_state())

    def restore(self) -> None:
        """Have the generators draw the same numbers again."""
        torch.set_rng_state(self.cpu)
        np.random.set_state(self.numpy)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda)


Held = list[tuple[dict[str, Tensor | None], dict[str, Tensor | None]]]
"""Where modules hold their buffers, each with what it held."""


@contextmanager
def repeating(
    layer: nn.Module, effects: Effects, random: RandomState | None = None, buffers: Held | None = None
) -> Iterator[None]:
    """Within it `forward` works on copies of the layer's buffers, and random numbers are those after `random`.

    `buffers`, from `copy_of_buffers`, stand in for the present ones. Afterwards buffers and generators are as before.
    Autograd's history of such a run stays valid, as it holds the copies. What `Effects.CALLS` stands for happens all
    the same.
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
    """The buffers that the layers hold now."""
    return [(part._buffers, dict(part._buffers)) for layer in layers for part in layer.modules() if part._buffers]


def copy_of_buffers(layer: nn.Module) -> Held:
    """Copies of the buffers that the layer holds now."""
    return [
        (store, {name: None if x is None else x.clone() for name, x in tensors.items()})
        for store, tensors in buffers_of(layer)
    ]


def put_back_buffers(held: Held) -> bool:
    """Have modules hold these tensors as buffers again; returns whether some were others."""
    changed = False
    for store, tensors in held:
        if store.keys() != tensors.keys() or any(store[name] is not x for name, x in tensors.items()):
            changed = True
            store.clear()
            store.update(tensors)
    return changed
