"""One layer's run, forward and backward: what `Net` repeats for each of its steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from caffe.errors import CaffeError
from caffe.layers.base import as_tuple
from caffe.net.build import Step, failure

__all__ = ["backward_step", "forward_step"]


def forward_step(step: Step) -> list[Tensor]:
    """Run the layer forward and fill its tops; returns its weighted losses."""
    tops = _run(step)
    losses = []
    for blob, top, weight in zip(step.tops, tops, step.loss_weights, strict=True):
        blob.tensor = top.detach()
        blob.stale = False
        if weight:
            losses.append(weight * top.detach().sum())
    return losses


def backward_step(step: Step) -> None:
    """Run the layer backward: overwrite its bottoms' diffs, add to its parameters' diffs."""
    if not step.backward:
        return
    _check_constant(step)
    if step.record is None:
        if step.fused:
            step.layer.error(
                "cannot run backward by itself: the last run was one of the whole net, which keeps no layer's "
                "history; run net.forward() before net.backward()"
            )
        _run(step)
    assert step.record is not None
    bottoms, tops = step.record
    pairs = [(top, blob.grad) for top, blob in zip(tops, step.tops, strict=True) if top.requires_grad]
    wanted = [x for x, need in zip(bottoms, step.needs, strict=True) if need]
    targets = [blob for blob, need in zip(step.bottoms, step.needs, strict=True) if need]
    grads: Sequence[Tensor | None] = [None] * (len(wanted) + len(step.params))
    if pairs:
        with torch.autograd.set_multithreading_enabled(False):
            grads = torch.autograd.grad(
                [top for top, _ in pairs],
                [*wanted, *step.params],
                [diff for _, diff in pairs],
                retain_graph=True,
                allow_unused=True,
            )
    for blob, grad in zip(targets, grads, strict=False):
        blob.grad = torch.zeros_like(blob.tensor) if grad is None else grad
    for param, grad in zip(step.params, grads[len(wanted) :], strict=True):
        if param.grad is None:
            param.grad = torch.zeros_like(param, requires_grad=False)
        if grad is not None:
            param.grad.data.add_(grad)


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
    if step.backward:
        bottoms = [x.detach().requires_grad_(need) for x, need in zip(bottoms, step.needs, strict=True)]
    try:
        with torch.set_grad_enabled(step.backward):
            tops = layer.forward(*bottoms)
    except CaffeError:
        raise
    except Exception as error:
        raise failure(step, error) from error
    tops = tuple(blob.tensor for blob in step.tops) if tops is None else as_tuple(tops)
    step.record = (bottoms, list(tops)) if step.backward else None
    step.fused = False
    return tops
