"""Runs a function without keeping what its gradients need: backward runs the function again."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from caffe.errors import NetError

__all__ = ["checkpoint"]

T = TypeVar("T")


def checkpoint(
    run: Callable[..., T],
    inputs: Sequence[Tensor],
    again: Callable[[], AbstractContextManager[object]],
    name: str,
) -> T:
    """Return `run(*inputs)`, with autograd's history. Backward keeps the inputs only.

    When backward needs the first of the tensors that `run` saved, `run` is called again inside the context `again()`,
    until it has saved the last tensor that is still needed. Each is freed after its use. A second backward
    (`retain_graph=True`) calls `run` once more. All calls must save the same tensors in the same order, else NetError
    names `name`. If an input or a weight was changed in place since forward, backward raises RuntimeError, as usual.
    torch.utils.checkpoint does the same, but imports torch.compile, which takes 75 MB and a second.
    """
    repeated = _Repeated(run, inputs, again, name)
    with saved_tensors_hooks(repeated.slot, _taken):
        return run(*inputs)


class _Slot:
    """Stands for one saved tensor in autograd's history. It is empty until the function has run again.

    A weight is an exception: its memory is in use anyway, so that the slot holds it from the start.
    """

    def __init__(self, repeated: _Repeated, x: Tensor) -> None:
        self.repeated, self.shape, self.dtype = repeated, x.shape, x.dtype
        self.is_weight = x.is_leaf and x.requires_grad
        self.tensor = x if self.is_weight else None
        self.version = x._version

    def fill(self, x: Tensor) -> None:
        """Take the tensor of the repeated run."""
        if not self.is_weight:
            self.tensor, self.version = x, x._version


class _Repeated:
    """A function that backward runs again. Only its slots own it, so that it is freed with the last of them."""

    def __init__(
        self,
        run: Callable[..., object],
        inputs: Sequence[Tensor],
        again: Callable[[], AbstractContextManager[object]],
        name: str,
    ) -> None:
        self._run, self._again, self._name = run, again, name
        self._saved = _Save.apply(torch.empty(0, requires_grad=True), *inputs).grad_fn
        self._slots: list[weakref.ref[_Slot]] = []

    def slot(self, x: Tensor) -> _Slot:
        """A new slot for x."""
        slot = _Slot(self, x)
        self._slots.append(weakref.ref(slot))
        return slot

    def fill(self) -> None:
        """Run the function again and fill the slots that still exist."""
        slots = [slot() for slot in self._slots]
        needed = max(index for index, slot in enumerate(slots) if slot is not None and not slot.is_weight)
        count = 0

        def save(x: Tensor) -> Tensor:
            nonlocal count
            kept, slot = x.detach(), slots[count]  # x itself would hold the history of this run
            if slot is not None:
                if (slot.shape, slot.dtype) != (x.shape, x.dtype):
                    raise self._error(f"saved a tensor {_text(x)}, where forward saved one {_text(slot)}")
                slot.fill(kept)
            if count == needed:
                raise _EnoughError
            count += 1
            return kept

        inputs = self._saved.saved_tensors[1:]
        try:
            with self._again(), saved_tensors_hooks(save, lambda x: x), torch.enable_grad():
                self._run(*inputs)
        except _EnoughError:
            return
        raise self._error(f"saved {count} tensors for its gradients, and forward saved {len(slots)}")

    def _error(self, what: str) -> NetError:
        return NetError(
            f"{self._name}: a repeated run {what}; expected equal runs. A layer whose runs differ must declare "
            "`effects = Effects.CALLS`, or the net must run without recompute"
        )


class _EnoughError(Exception):
    """Ends a repeated run after the last tensor that backward needs."""


def _taken(slot: _Slot) -> Tensor:
    """Return the slot's tensor, and empty the slot."""
    if slot.tensor is None:
        slot.repeated.fill()
    tensor = slot.tensor
    assert tensor is not None
    if not slot.is_weight:
        slot.tensor = None
    if tensor._version != slot.version:
        raise RuntimeError(f"a tensor {_text(slot)}, which a gradient needs, was changed in place after it was saved")
    return tensor


def _text(x: Tensor | _Slot) -> str:
    return f"of shape {tuple(x.shape)}, {x.dtype}"


class _Save(torch.autograd.Function):
    """Saves tensors as autograd does: with its hooks, and with an error if they are changed in place."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return torch.empty(0)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> None:
        raise AssertionError("only holds tensors")
