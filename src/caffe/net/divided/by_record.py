"""Checks that a net computes each record independently, so that a batch can be split into micro-batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from caffe.blob import Blob
from caffe.errors import CaffeError, NetError
from caffe.layers.base import Effects, Records, Source
from caffe.net import Net
from caffe.net.graph.step import Step

__all__ = ["check_micro_batches"]


def check_micro_batches(net: Net, count: int) -> None:
    """Raise a NetError unless `count` micro-batches give the same result as the whole batch."""
    state = [layer for layer in net.layers if Effects.BUFFERS in layer.effects and any(True for _ in _kept(layer))]
    if state:
        raise _refused(state[0], "keeps a state between batches, which snapshots of a pipeline do not store")
    if count == 1:
        return
    tops = [blob for step in net.steps if isinstance(step.layer, Source) for blob in step.tops]
    sizes = {blob.shape[0] if blob.shape else 0 for blob in tops}
    if len(sizes) != 1 or 0 in sizes or next(iter(sizes)) % count:
        listed = ", ".join(f'"{blob.name}" {blob.shape}' for blob in tops)
        raise NetError(
            f"pipeline: {count} micro_batches need data layers with one batch size, divisible by {count}; they deliver "
            f"{listed or 'nothing'}; change batch_size or micro_batches"
        )
    (batch,) = sizes
    micro = {id(blob): torch.empty((batch // count, *blob.shape[1:]), device="meta") for blob in tops}
    for step in net.steps:
        if not isinstance(step.layer, Source):
            _check_step(step, batch, count, micro)


def _kept(layer: Any) -> Any:
    """Return the names of the layer's state besides its blobs."""
    blobs = {id(blob) for blob in layer.tensors}
    return (name for name, value in layer.state_dict(keep_vars=True).items() if id(value) not in blobs)


def _check_step(step: Step, batch: int, count: int, micro: dict[int, Tensor]) -> None:
    layer: Any = step.layer
    if layer.records is Records.UNKNOWN:
        raise _refused(layer, "is not known to compute each record independently, which micro-batches require")
    if reason := _mixes(step):
        raise _refused(layer, reason)
    try:
        made = layer.infer(*[micro[id(blob)] for blob in step.bottoms])
    except CaffeError as error:
        raise _refused(layer, f"cannot take a part of the batch ({error})") from error
    for blob, top in zip(step.tops, made, strict=True):
        if tuple(top.shape) != _expected(layer, blob, batch, count):
            raise _refused(layer, f'has top "{blob.name}" {blob.shape}, whose first axis is not the batch of {batch}')
        micro[id(blob)] = top


def _expected(layer: Any, blob: Blob, batch: int, count: int) -> tuple[int, ...]:
    """The shape of a top for a micro-batch."""
    if layer.records is Records.MEAN and not blob.shape:
        return ()
    return (batch // count, *blob.shape[1:]) if blob.shape and blob.shape[0] == batch else (-1,)


def _mixes(step: Step) -> str:
    """Return why the layer's options or loss weights mix the records; empty if they do not."""
    reason = step.layer.mixes_records(len(step.bottoms[0].shape) if step.bottoms else 0)
    if reason:
        return reason
    if any(weight and blob.shape for blob, weight in zip(step.tops, step.loss_weights, strict=True)):
        return "has a loss weight on a top with several values; use a loss layer that averages over the records"
    return ""


def _refused(layer: Any, fact: str) -> NetError:
    return NetError(
        f'pipeline: layer "{layer.name}" ({layer.type}) {fact}; train with micro_batches: 1, or without pipeline'
    ).at(layer.name)
