"""Writes a Chrome trace of runs of a whole net, in which layers appear by name."""

from __future__ import annotations

import json
import os
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from caffe import torch_internals
from caffe.net.plan.rewrite import Call
from caffe.net.run.module import NetModule
from caffe.proto import files

__all__ = ["trace"]

_ENGINE = "autograd::engine::evaluate_function: "

Span = tuple[int, str]
"""The sequence number of the first autograd node that a layer's forward may create, and the layer's name."""


def trace(module: NetModule, run: Callable[[], object], path: str | Path, steps: int = 3) -> None:
    """Profile `steps` runs of `run`, which runs `module`, and write a Chrome trace; atomically.

    A range with the layer's name shows its forward run, a range `NAME backward` its autograd nodes. Fused layers form
    one range. Raises FileError if the file cannot be written.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # keeps the profiler from logging to standard error
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_initialized()
    with _named_layers(module) as spans, profile(activities=activities) as profiler:
        for number in range(1, steps + 1):
            with record_function(f"step {number}"):
                run()
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(raw))
        content = json.loads(raw.read_text())
    content["traceEvents"] += _backward_ranges(content["traceEvents"], spans)
    with files.atomic(path) as file:
        file.write(json.dumps(content).encode())


@contextmanager
def _named_layers(module: NetModule) -> Iterator[list[Span]]:
    """Label the module's layers for the profiler. Yields the list of their first autograd nodes, in order."""
    calls, spans = module.plan.calls, list[Span]()
    module.follow([replace(call, run=partial(_run_named, call, spans)) for call in calls])
    try:
        yield spans
    finally:
        module.follow(calls)


def _run_named(call: Call, spans: list[Span], *bottoms: torch.Tensor) -> Any:
    spans.append((torch_internals.sequence_number(), call.layer.name))
    with record_function(call.layer.name):
        tops = call.run(*bottoms)
    spans.append((torch_internals.sequence_number(), ""))
    return tops


def _backward_ranges(events: Sequence[dict[str, Any]], spans: list[Span]) -> list[dict[str, Any]]:
    """One event for each run of consecutive autograd nodes of one layer. Nodes have the sequence numbers of forward."""
    starts = [start for start, _ in spans]
    ranges: list[dict[str, Any]] = []
    last = ""
    nodes = (event for event in events if event.get("ph") == "X" and event["name"].startswith(_ENGINE))
    for node in sorted(nodes, key=lambda event: event["ts"]):
        number = node["args"].get("Sequence number")
        if number is not None:  # else the accumulation of a parameter's gradient, which belongs to the previous layer
            index = bisect_right(starts, number) - 1
            name = spans[index][1] if index >= 0 else ""
            if name and name != last:
                head = {key: node[key] for key in ("ph", "pid", "tid", "ts")}
                ranges.append({**head, "cat": "user_annotation", "name": f"{name} backward", "dur": 0})
            last = name
        if last:
            ranges[-1]["dur"] = node["ts"] + node["dur"] - ranges[-1]["ts"]
    return ranges
