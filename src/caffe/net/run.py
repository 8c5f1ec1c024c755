"""One layer's run, forward and backward: what `Net` repeats for each of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from caffe.blob import diff_of
from caffe.errors import CaffeError
from caffe.layers.base import as_tuple
from caffe.net.build import Step, failure

__all__ = ["backward_step", "forward_step"]


def forward_step(step: Step) -> list[Tensor]:
    """Run the layer forward and fill its tops; returns its weighted losses."""
    tops = _run(step)
    losses = []
    for blob, top, weight in zip(step.tops, tops, step.loss_weights, strict=True):
        value = top.detach() if top.requires_grad else top
        blob.tensor = value
        blob.stale = False
        if weight:
            losses.append(weight * value.sum())
    return losses


def backward_step(step: Step) -> None:
    """Run the layer backward: overwrite its bottoms' diffs, add to its parameters' diffs."""
    if not step.backward:
        return
    if step.layer.constant:
        _check_constant(step)
    if step.record is None:
        if step.fused:
            step.layer.error(
                "cannot run backward by itself: the last run was one of the whole net, which keeps no layer's "
                "history; run net.forward() before net.backward(), and net.stepwise() before both if it is optimised"
            )
        _run(step)
    assert step.record is not None
    bottoms, tops = step.record
    heads = [(top, blob.grad) for top, blob in zip(tops, step.tops, strict=True) if top.requires_grad]
    wanted = [x for x, need in zip(bottoms, step.needs, strict=True) if need]
    targets = [blob for blob, need in zip(step.bottoms, step.needs, strict=True) if need]
    leaves = [*wanted, *step.params]
    grads: Sequence[Tensor | None] = [None] * len(leaves)
    if heads and leaves:
        made, diffs = zip(*heads, strict=True)
        with torch.enable_grad():
            root = _Root.apply(diffs, *made)
        grads = torch.autograd.grad(root, leaves, retain_graph=True, allow_unused=True)
    for blob, grad in zip(targets, grads, strict=False):
        blob.grad = torch.zeros_like(blob.tensor) if grad is None else grad
    for param, grad in zip(step.params, grads[len(wanted) :], strict=True):
        diff = diff_of(param)
        if grad is not None:
            diff.data.add_(grad)


class _Root(torch.autograd.Function):
    """A number whose gradient for each top is the diff given: torch.autograd.grad imports a compiler to take diffs."""

    @staticmethod
    def forward(ctx: Any, diffs: Sequence[Tensor], *tops: Tensor) -> Tensor:
        ctx.diffs = diffs
        return tops[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.diffs


def _check_constant(step: Step) -> None:
    for bottom, need in enumerate(step.needs):
        if need and bottom in step.layer.constant:
            step.layer.error(
                f"has no gradient for {step.layer.bottom_name(bottom)}, but the net asks for one; write "
                "propagate_down: false for that bottom, or leave out force_backward"
            )


def _run(step: Step) -> tuple[Tensor, ...]:
    """The tops for the present data of the bottoms; keeps autograd's history where backward needs it."""
    layer = step.layer
    bottoms = [blob.tensor for blob in step.bottoms]
    try:
        if step.backward:
            bottoms = [x.detach().requires_grad_(need) for x, need in zip(bottoms, step.needs, strict=True)]
            with torch.enable_grad():
                tops = layer.forward(*bottoms)
        else:
            tops = layer.forward(*bottoms)
    except CaffeError:
        raise
    except Exception as error:
        raise failure(step, error) from error
    tops = tuple(blob.tensor for blob in step.tops) if tops is None else as_tuple(tops)
    step.record = (bottoms, list(tops)) if step.backward else None
    step.fused = False
    return tops
