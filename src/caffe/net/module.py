"""NetModule: the same graph as one `torch.nn.Module`, run as one piece."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from caffe.layers.base import as_tuple
from caffe.net.build import Step

__all__ = ["NetModule"]


class NetModule(nn.Module):
    """A net's layers as sub-modules, under their names, and its graph as `forward`.

    `forward(**inputs)` takes tensors for the net's Input blobs, by default their present data, and returns the loss
    (a scalar that carries autograd's history) and every blob's final tensor by name.
    """

    def __init__(self, steps: Sequence[Step], name: str = "") -> None:
        super().__init__()
        self.name = name
        self._steps = [step for step in steps if step.layer.type != "Split"]
        self._renamed = _without_splits(steps)
        used: set[str] = set()
        for step in self._steps:
            self.add_module(_module_name(step.layer.name, used), step.layer)

    def forward(self, **inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        values: dict[str, Tensor] = {}
        total: Tensor | None = None
        for step in self._steps:
            bottoms = [self._read(values, step, index) for index in range(len(step.bottoms))]
            if step.layer.type == "Input":
                tops = tuple(inputs.get(blob.name, blob.tensor) for blob in step.tops)
            else:
                made = step.layer.forward(*bottoms)
                tops = tuple(blob.tensor for blob in step.tops) if made is None else as_tuple(made)
            for blob, top, weight in zip(step.tops, tops, self._weights(step), strict=True):
                values[blob.name] = top
                if weight:
                    part = weight * top.sum()
                    total = part if total is None else total + part
        return torch.zeros(()) if total is None else total, values

    def forward_backward(self) -> float:
        """One pass forward and backward; adds to the parameters' gradients, fills the blobs' data; returns the loss."""
        loss, values = self()
        if loss.requires_grad:
            loss.backward()
        return float(loss.detach())
