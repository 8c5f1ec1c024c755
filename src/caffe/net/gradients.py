"""Which layers and bottoms need gradients: the analysis that Caffe makes before the first run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from caffe import log

if TYPE_CHECKING:
    from caffe.net.build import Step

__all__ = ["mark_backward"]


def mark_backward(steps: Sequence[Step], force: bool) -> None:
    """Set `backward`, `needs` and `params` of every step.

    A step runs backward if it leads to a loss and a parameter or a gradient-carrying bottom wants it. `force`
    (NetParameter.force_backward) makes every layer run backward, to all bottoms but exempt ones such as labels.
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
        verb = "needs" if step.backward else "does not need"
        log.info("net.cpp:200" if step.backward else "net.cpp:202", f"{step.layer.name} {verb} backward computation.")
        for index, name in enumerate(step.bottom_names):
            if leads:
                under_loss.add(name)
            else:
                step.needs[index] = False
            if not step.needs[index]:
                unwanted.add(name)
    if force:
        for step in steps:
            step.backward = True
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
