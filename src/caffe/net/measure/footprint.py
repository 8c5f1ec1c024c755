"""The memory of a run: that of the process on the CPU, that of PyTorch on a GPU."""

from __future__ import annotations

import ctypes
import platform
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

try:
    import resource
except ImportError:  # not a Unix
    resource = None  # type: ignore[assignment]

__all__ = ["Footprint", "footprint", "held"]

_RESET_PEAK = "5"  # of /proc/self/clear_refs


@dataclass(frozen=True)
class Footprint:
    """Bytes at the peak of a run and before it, and a text that names the source of the figure.

    `before` is None if the system reports only the peak since the process started. Both are None if it reports none.
    """

    peak: int | None
    before: int | None
    source: str


def footprint(net: Any, run: Callable[[], object]) -> Footprint:
    """Measure the memory of `run`, which runs `net` as one piece.

    `run` is called three times: once to release the memory of earlier runs layer by layer (histories, diffs of blobs
    and freed blocks), then twice with measurement, since each step starts with the memory of the previous one.
    """
    run()
    for step in net.steps:
        for blob, need in zip(step.bottoms, step.needs, strict=True):
            if need:
                blob.drop_diff(f'blob "{blob.name}": its diff was freed to measure memory; run net.backward() again')

    def twice() -> None:
        run()
        run()

    return _on_gpu(net.device, twice) if net.device.type == "cuda" else _on_cpu(twice)


def _on_cpu(run: Callable[[], object]) -> Footprint:
    _return_freed_memory()
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
        before = _status("VmRSS")
        run()
        return Footprint(_status("VmHWM"), before, "resident memory, VmHWM of /proc/self/status, reset before the run")
    except (OSError, LookupError):
        run()
        return _since_the_beginning()


def _on_gpu(device: torch.device, run: Callable[[], object]) -> Footprint:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    return Footprint(torch.cuda.max_memory_allocated(device), before, "torch.cuda.max_memory_allocated")


def _since_the_beginning() -> Footprint:
    if resource is None:
        return Footprint(None, None, "")
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Footprint(peak, None, "resident memory since the process began, ru_maxrss of getrusage")


def _status(name: str) -> int:
    """A field of /proc/self/status, in bytes."""
    found = re.search(rf"^{name}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    if not found:
        raise LookupError(name)
    return int(found[1]) * 1024


def _return_freed_memory() -> None:
    """Return unused memory to the system, if the C library has a function for it."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def held(net: Any) -> dict[str, int]:
    """The bytes that a net holds between two steps, for parameters, their gradients and blobs."""
    parameters = [entry.tensor for entry in net.learnable]
    return {
        "parameters": _bytes(parameters),
        "their gradients": _bytes(x.grad for x in parameters if x.grad is not None),
        "blobs": _bytes(blob.read() for blob in net.blobs.values() if not blob.data_memory.missing),
    }


def _bytes(tensors: Iterable[Tensor]) -> int:
    """The memory of tensors in bytes. Shared memory counts once."""
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    return sum(storages.values())
