"""The log lines of `debug_info`: mean magnitudes of every blob and gradient, as Caffe prints them."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from caffe import log
from caffe.net.graph.step import Learnable, Step

__all__ = ["log_backward", "log_forward", "log_norms"]


def log_forward(step: Step) -> None:
    """Log the mean absolute value of each top and each parameter of a layer that has just run forward."""
    name = step.layer.name
    for blob in step.tops:
        log.info("net.cpp:593", f"    [Forward] Layer {name}, top blob {blob.name} data: {_mean(blob.read())}")
    for index, param in enumerate(step.layer.tensors):
        log.info("net.cpp:605", f"    [Forward] Layer {name}, param blob {index} data: {_mean(param)}")


def log_backward(step: Step) -> None:
    """Log the mean absolute gradient of each bottom and each parameter of a layer that has just run backward."""
    name = step.layer.name
    for blob, need in zip(step.bottoms, step.needs, strict=True):
        if need:
            log.info(
                "net.cpp:621", f"    [Backward] Layer {name}, bottom blob {blob.name} diff: {_mean(blob.read_diff())}"
            )
    for index, param in enumerate(step.layer.param_blobs):
        if any(param is wanted for wanted in step.params):
            log.info("net.cpp:632", f"    [Backward] Layer {name}, param blob {index} diff: {_mean(param.read_diff())}")


def log_norms(learnable: Iterable[Learnable]) -> None:
    """Log the norms of all parameters together and of all their gradients together."""
    entries = list(learnable)
    data = [entry.tensor.detach() for entry in entries]
    diff = [entry.tensor.grad for entry in entries if entry.tensor.grad is not None]
    norms = [
        log.number(sum(float(torch.linalg.vector_norm(x, order)) ** order for x in xs) ** (1 / order))
        for order in (1, 2)
        for xs in (data, diff)
    ]
    log.error(
        "net.cpp:721",
        f"    [Backward] All net params (data, diff): L1 norm = ({norms[0]}, {norms[1]}); "
        f"L2 norm = ({norms[2]}, {norms[3]})",
    )


def _mean(x: torch.Tensor) -> str:
    return log.number(float(x.detach().abs().sum()) / max(x.numel(), 1))
