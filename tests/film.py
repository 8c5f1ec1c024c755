"""Replaces a CUDA graph in tests on the CPU: repeats recorded operators without calling Python code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Film", "reads_host"]


def reads_host(func: Any) -> bool:
    """Whether an operator makes the host wait for values, which CUDA does not allow during capture."""
    names = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2")
    return func.overloadpacket in [getattr(torch.ops.aten, name) for name in names]


class _Shots(TorchDispatchMode):
    """Records every operator that runs, with its arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if reads_host(func):
            raise RuntimeError(f"{func}: operation not permitted when stream is capturing")
        made = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, made))
        return made


class Film:
    """Records operators. The state of `module` is restored after recording; a replay writes into the same memory."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.records = self.replays = 0

    def __call__(self, work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        held = [(x, x.clone()) for x in self.module.buffers()]
        drawn = torch.get_rng_state()
        with _Shots() as shots:
            made = work()
        with torch.no_grad():
            for x, before in held:
                x.copy_(before)
        torch.set_rng_state(drawn)
        self.records += 1

        @torch.no_grad()
        def replay() -> None:
            self.replays += 1
            for func, args, kwargs, old in shots.calls:
                again = func(*args, **kwargs)
                for mine, new in zip(tree_leaves(old), tree_leaves(again), strict=True):
                    if isinstance(mine, Tensor) and mine.data_ptr() != new.data_ptr():
                        mine.copy_(new)

        return replay, made
