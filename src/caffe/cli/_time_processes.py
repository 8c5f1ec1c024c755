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
    found = [_round(net, reduction) for _ in range(_WARM_UP + iterations)][_WARM_UP:]
    slowest = [[max(times) for times in zip(*each, strict=True)] for each in zip(*processes.gather(found), strict=True)]
    if processes.rank:
        return
    alone, exchange, whole, waited = (statistics.median(column) for column in zip(*slowest, strict=True))
    sent = 2 * (processes.size - 1) / processes.size * reduction.bytes
    hidden = min(1.0, max(0.0, 1 - (whole - alone) / exchange))
    threads = torch.get_num_threads()
    print(f"{processes.size} processes, threads each: {threads}; medians of {iterations} runs, of the slowest process")
    for name, value in (
        ("computing alone", f"{alone:10.2f} ms"),
        ("exchanging gradients alone", f"{exchange:10.2f} ms"),
        ("both together", f"{whole:10.2f} ms"),
        ("  including waiting at the end", f"{waited:10.2f} ms"),
        ("gradients", f"{reduction.bytes / 1e6:10.2f} MB"),
        ("sent by each process, a ring", f"{sent / 1e6:10.2f} MB a step"),
        ("hidden behind computing", f"{hidden:10.0%}"),
    ):
        print(f"  {name:32}{value}")


def _round(net: Any, reduction: Reduction) -> list[float]:
    """Measure computing, exchanging, both together, and waiting at the end of both, once each, in milliseconds.

    The three take turns, so that a change of the machine's load affects all.
    """

    def step() -> None:
        reduction.arm()
        net.forward_backward()
        reduction.run([])

    runs = (net.forward_backward, lambda: reduction.run([]), step)
    return [*[_milliseconds(net, reduction.group, run) for run in runs], reduction.waited * 1e3]


def _milliseconds(net: Any, processes: group.Group, run: Callable[[], object]) -> float:
    net.clear_param_diffs()
    processes.gather(None)  # a barrier
    begin = time.perf_counter()
    run()
    return (time.perf_counter() - begin) * 1e3
