"""The time of each layer of a net, measured by running the layer alone."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from caffe.errors import CaffeError
from caffe.layers.base import Effects, Source, as_tuple
from caffe.layers.support.effects import RandomState
from caffe.net.graph.step import Step
from caffe.net.measure.cost import wait

__all__ = ["layer_seconds"]

_RUNS = 3
_LONG = 0.5  # seconds after which no further run begins


def layer_seconds(steps: Sequence[Step], device: torch.device) -> list[float | None]:
    """Return the time of each layer in seconds, forward and (if it has one) backward: the shortest of a few runs.

    The bottoms are random numbers in the shapes of the blobs, zeros if they need no gradient, or the layer's examples.
    Blobs, buffers, gradients and random generators are not changed. The result is None for a layer that cannot run
    alone, for instance because it runs code that is not torch's, and 0 for a data layer.
    """
    before = RandomState.now()
    try:
        return [_seconds(step, device) for step in steps]
    finally:
        before.restore()


def _seconds(step: Step, device: torch.device) -> float | None:
    if isinstance(step.layer, Source):
        return 0.0
    if Effects.CALLS in step.layer.effects_now:
        return None
    try:
        with step.layer.repeating():
            spent = [_run(step, device)]
            while len(spent) < _RUNS and sum(spent) < _LONG:
                spent.append(_run(step, device))
            return min(spent)
    except (CaffeError, RuntimeError, IndexError):  # random numbers are not a valid input
        return None


def _run(step: Step, device: torch.device) -> float:
    bottoms = [_bottom(step, index, device) for index in range(len(step.bottoms))]
    wait()
    begin = time.perf_counter()
    with torch.set_grad_enabled(step.backward):
        tops = [top for top in as_tuple(step.layer.forward(*bottoms)) if top.requires_grad]
    wanted = [x for x in (*bottoms, *step.layer.parameters()) if x.requires_grad]
    if tops and wanted:
        torch.autograd.grad(tops, wanted, [torch.ones_like(top) for top in tops], allow_unused=True)
    wait()
    return time.perf_counter() - begin


def _bottom(step: Step, index: int, device: torch.device) -> Tensor:
    fill = torch.randn if step.needs[index] else torch.zeros  # zeros are valid labels
    x = fill(step.bottoms[index].shape, device=device)
    given = step.layer.example(index, x)
    return (x if given is None else given).detach().requires_grad_(step.needs[index])
