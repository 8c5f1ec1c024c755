"""Shared by the commands that build a net."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from caffe import mode
from caffe.cli.flags import precision_name
from caffe.net import Net
from caffe.net.plan.precision import dtype_of
from caffe.proto import caffe_pb2

__all__ = ["bytes_text", "open_net", "summary"]


def open_net(flags: SimpleNamespace, phase: str, precision: str = "") -> Any:
    """Build the net of `-model`, `-level` and `-stage` in the phase "TRAIN" or "TEST", on the device of the mode.

    `precision` is the value of that flag.
    """
    number, dtype = caffe_pb2.Phase.Value(phase), dtype_of(precision_name(precision or "fp32"))
    stages = flags.stage.split(",")
    return Net(flags.model, number, level=flags.level, stages=stages, device=mode.device(), precision=dtype)


def summary(net: Any, which: str = "") -> str:
    """Return a line with a net's phase and size: layers, parameters, memory. `which` is added after the phase."""
    parameters = sum(blob.count for blobs in net.params.values() for blob in blobs)
    data = sum(math.prod(blob.shape) for blob in net.blobs.values())
    name, phase = net.name or "net", caffe_pb2.Phase.Name(net.phase)
    return (
        f"{name} ({phase}{which}): {len(net.layers)} layers, {parameters:,} parameters ({bytes_text(4 * parameters)}), "
        f"{bytes_text(4 * data)} of data per batch"
    )


def bytes_text(count: float) -> str:
    """Format a number of bytes: `12.3 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"
