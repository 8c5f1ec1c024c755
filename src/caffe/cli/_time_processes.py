"""`caffe time -procs`: the training step of several processes, and the time for exchanging gradients."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from caffe.parallel import group
from caffe.solver.reduction import Reduction

__all__ = ["show"]

_WARM_UP = 3


def show(net: Any, iterations: int) -> None:
    """Measure a net's training step in this process; process 0 prints its measurements."""
    processes = group.current()
    reduction = Reduction(processes, net)
    waits: list[float] = []

    def compute() -> None:
        net.clear_param_diffs()
        net.forward_backward()

    def step() -> None:
        net.clear_param_diffs()
        reduction.arm()
        net.forward_backward()
        reduction.run([])
        waits.append(reduction.waited * 1e3)

    alone = _median(compute, iterations)
    exchange = _median(lambda: reduction.run([]), iterations)
    whole = _median(step, iterations)
    if processes.rank:
        return
    size, waited = processes.size, statistics.median(waits[_WARM_UP:])
    sent = 2 * (size - 1) / size * reduction.bytes
    hidden = max(0.0, 1 - max(0.0, whole - alone) / exchange)
    print(f"{size} processes, {torch.get_num_threads()} threads each; medians of {iterations} runs, of process 0")
    for name, value in (
        ("computing alone", f"{alone:10.2f} ms"),
        ("exchanging gradients alone", f"{exchange:10.2f} ms"),
        ("both together", f"{whole:10.2f} ms"),
        ("  including waiting at the end", f"{waited:10.2f} ms"),
        ("gradients", f"{reduction.bytes / 1e6:10.2f} MB"),
        ("sent by each process, a ring", f"{sent / 1e6:10.2f} MB a step"),
        ("hidden behind computing", f"{hidden:10.0%}"),
    ):
        print(f"  {name:30}{value}")


def _median(run: Callable[[], object], iterations: int) -> float:
    """Return the median milliseconds of a run, after some warm-up runs."""
    spent = []
    for number in range(_WARM_UP + iterations):
        begin = time.perf_counter()
        run()
        if number >= _WARM_UP:
            spent.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(spent)
