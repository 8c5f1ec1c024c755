"""Determines which layers and bottoms need gradients and where backward starts, as Caffe does before the first run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from caffe import log
from caffe.blob import Blob, ParamBlob
from caffe.net.graph.step import Step

__all__ = [
    "first_diffs",
    "gradients_apart",
    "have_several_diffs",
    "loss_with_gradient_of",
    "mark_backward",
    "roots",
    "trace_back",
]


def mark_backward(steps: Sequence[Step], force: bool) -> None:
    """Set `backward`, `needs` and `params` of every step.

    A step runs backward if a loss depends on it, and a parameter or a bottom needs its gradient. `force`
    (NetParameter.force_backward) makes all layers run backward, to all bottoms except exempt ones such as labels.
    """
    trace_back(steps)
    for step in reversed(steps):
        verb = "needs" if step.backward else "does not need"
        log.info("net.cpp:200" if step.backward else "net.cpp:202", f"{step.layer.name} {verb} backward computation.")
    if force:
        for step in steps:
            step.backward = True
            step.forced = [not need for need in step.needs]
            step.needs = [need or index not in step.layer.exempt for index, need in enumerate(step.needs)]
            step.params = [blob for blob in step.layer.param_blobs if isinstance(blob.parameter, nn.Parameter)]
    for step in steps:
        own = not type(step.layer).__module__.startswith("caffe.")
        step.wary = own or step.layer.lends or (step.in_place and step.backward)
    wanted = {id(blob.parameter) for step in steps for blob in step.params}
    for step in steps:
        for blob in step.layer.tensors:
            if isinstance(blob, nn.Parameter):
                blob.requires_grad_(id(blob) in wanted)


def trace_back(steps: Sequence[Step]) -> None:
    """Clear `backward` and `needs` of steps on which no loss depends, or which receive no gradient.

    Source: BVLC net.cpp, Net::Init.
    """
    under_loss: set[str] = set()
    unwanted: set[str] = set()
    for step in reversed(steps):
        names = step.top_names
        leads = any(weight != 0 for weight in step.loss_weights) or any(name in under_loss for name in names)
        if step.backward and all(name in unwanted for name in names):
            step.backward = False
            step.needs = [False] * len(step.needs)
        step.backward = step.backward and leads
        for index, name in enumerate(step.bottom_names):
            if leads:
                under_loss.add(name)
            else:
                step.needs[index] = False
            if not step.needs[index]:
                unwanted.add(name)


def roots(steps: Sequence[Step]) -> dict[Blob, float]:
    """The blobs at which backward starts, with their loss weights.

    The initial diff of a blob is its loss weight. A step that computes the gradient of the blob overwrites this diff.
    The weight then affects only the value of the loss. Exception: for in-place steps, the weight is the diff of the top
    of the last such step. (If a blob with a loss weight has readers, `insert_splits` moves the weight to a separate
    top.)
    """
    found: dict[Blob, float] = {}
    for step in steps:
        for blob, need in zip(step.bottoms, step.needs, strict=True):
            if step.backward and need and blob not in step.tops:
                found.pop(blob, None)
        if step.backward:
            found.update({blob: weight for blob, weight in zip(step.tops, step.loss_weights, strict=True) if weight})
    return found


def first_diffs(steps: Sequence[Step]) -> list[tuple[Blob, float]]:
    """The blobs whose initial diff backward uses, since no layer overwrites it, with the value of that diff."""
    given = {id(blob) for step in steps for blob, need in zip(step.bottoms, step.needs, strict=True) if need}
    found = {
        id(blob): (blob, weight)
        for step in steps
        if step.backward
        for blob, weight in zip(step.tops, step.loss_weights, strict=True)
        if id(blob) not in given
    }
    return list(found.values())


def have_several_diffs(steps: Sequence[Step]) -> bool:
    """Whether blobs that share a parameter have separate diffs, which a pass of the whole net cannot compute."""
    diffs: dict[int, int] = {}
    blobs = [blob for step in steps for blob in step.params]
    return any(diffs.setdefault(id(blob.parameter), id(blob.diff_memory)) != id(blob.diff_memory) for blob in blobs)


def gradients_apart(steps: Sequence[Step]) -> AbstractContextManager[None]:
    """A context in which gradients of weights shared from another net are added to the diffs of the steps' blobs."""
    guests = {id(blob.parameter): blob for step in steps for blob in step.params if blob.gradient is None}
    return _apart(list(guests.values())) if guests else nullcontext()


@contextmanager
def _apart(guests: Sequence[ParamBlob]) -> Iterator[None]:
    before = [blob.parameter.grad for blob in guests]
    for blob in guests:
        blob.parameter.grad = None
    try:
        yield
        for blob in guests:
            if blob.parameter.grad is not None:
                blob.add_diff(blob.parameter.grad)
    finally:
        for blob, grad in zip(guests, before, strict=True):
            blob.parameter.grad = grad


def loss_with_gradient_of(loss: Tensor, root: Tensor) -> Tensor:
    """The value of `loss` with the gradient of `root`."""
    return _Rooted.apply(loss.detach(), root)


class _Rooted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, root: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        return None, grads[0]
