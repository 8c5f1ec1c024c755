"""PyTorch without Cafetière: eager code as usually written, or tuned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.plain_torch import PlainNet
from caffe.proto import caffe_pb2, text, weights


def train(folder: str, tuned: bool = False, compiled: bool = False) -> Callable[[], object]:
    """Zero the gradients, forward, backward, SGD. Tuned: channels_last and fused SGD; compiled: torch.compile."""
    at = Path(folder)
    module = PlainNet(text.read(at / "net.prototxt", caffe_pb2.NetParameter()), weights.read(at / "net.caffemodel"))
    data, label = torch.from_numpy(np.load(at / "data.npy")), torch.from_numpy(np.load(at / "label.npy"))
    if tuned:
        module, data = module.to(memory_format=torch.channels_last), data.to(memory_format=torch.channels_last)
    return stepping(module, data, label, tuned, compiled)


def stepping(module: nn.Module, data: Tensor, label: Tensor, tuned: bool, compiled: bool) -> Callable[[], object]:
    """A function that makes a step: zero the gradients, forward, backward, SGD."""
    optimizer = torch.optim.SGD(module.parameters(), 0.0001, 0.9, weight_decay=0.0005, fused=tuned or None)
    run = torch.compile(module) if compiled else module

    def step() -> float:
        optimizer.zero_grad()
        loss = run(data, label)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def matrix_product(folder: str, size: int = 2048) -> Callable[[], object]:
    """A product of two square matrices by oneDNN, the fastest of torch on a CPU."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    return lambda: torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
