"""PyTorch without Cafetière: eager code as usually written, or tuned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.plain_torch import batches, read


def train(folder: str, tuned: bool = False, compiled: bool = False) -> Callable[[], object]:
    """Zero the gradients, forward, backward, SGD. Tuned: channels_last and fused SGD; compiled: torch.compile."""
    module, given = read(Path(folder)), batches(Path(folder))
    if tuned and given[0][0].dim() == 4:
        module = module.to(memory_format=torch.channels_last)
        given = [(data.to(memory_format=torch.channels_last), label) for data, label in given]
    return stepping(module, given, tuned, compiled)


def stepping(
    module: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], tuned: bool, compiled: bool
) -> Callable[[], object]:
    """A function that makes a step for each batch: zero the gradients, forward, backward, SGD. Returns the losses."""
    learned = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(learned, 0.0001, 0.9, weight_decay=0.0005, fused=tuned or None)
    run = torch.compile(module) if compiled else module

    def step(data: Tensor, label: Tensor) -> float:
        optimizer.zero_grad()
        loss = run(data, label)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return lambda: [step(data, label) for data, label in batches]


def matrix_product(folder: str, size: int = 2048) -> Callable[[], object]:
    """A product of two square matrices by oneDNN, torch's fastest product on a CPU."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    return lambda: torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
