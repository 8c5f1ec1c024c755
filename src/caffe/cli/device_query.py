"""`caffe device_query`."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from types import SimpleNamespace

from caffe import log
from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.errors import CaffeError


@command("gpu", task="tools")
def device_query(flags: SimpleNamespace, display: Display) -> None:
    """Describe the CPU and the GPUs of this machine.

    `-gpu 0,1` or `-gpu all` selects the GPUs to describe. It is an error if one of them cannot be used.

        caffe device_query -gpu all
    """
    log.info("caffe.cpp:138", f"Querying GPUs {flags.gpu}")
    import torch

    from caffe.cli import _device

    numbers = _device.gpus(flags.gpu)
    if flags.gpu not in ("", "all") and not numbers:
        raise CaffeError(
            f"Cannot use GPU {flags.gpu}: PyTorch {torch.__version__} sees no CUDA device here; "
            "check the driver, and that PyTorch was installed with CUDA"
        )
    print(f"CPU: {_processor()}, {os.cpu_count()} logical cores, {torch.get_num_threads()} threads in use")
    print(f"PyTorch {torch.__version__}, CUDA {torch.version.cuda or 'not built in'}")
    for line in _together():
        print(line)
    for number in numbers or range(torch.cuda.device_count()):
        for line in _describe(number, torch.cuda.get_device_properties(number)):
            log.info("common.cpp:224", line)
            display.say(line)


def _together() -> list[str]:
    """Describe how several processes would exchange gradients, and which GPUs can access each other's memory."""
    import torch
    import torch.distributed as dist

    if not dist.is_available():
        return ["Several processes: not in this PyTorch"]
    nccl = f"NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}" if dist.is_nccl_available() else "NCCL not built in"
    lines = [f"Several processes: {'gloo' if dist.is_gloo_available() else 'no gloo'} (CPUs), {nccl} (GPUs)"]
    count = torch.cuda.device_count()
    reached = [
        f"{first}-{second}" for first in range(count) for second in range(first + 1, count) if _reaches(first, second)
    ]
    return [*lines, f"GPUs that reach each other's memory: {', '.join(reached) or 'none'}"] if count > 1 else lines


def _reaches(first: int, second: int) -> bool:
    """Whether a GPU can directly access the memory of another."""
    import torch

    try:
        return torch.cuda.can_device_access_peer(first, second)
    except (RuntimeError, AssertionError):
        return False  # the driver does not report it


def _describe(number: int, facts: object) -> list[str]:
    """Print Caffe's lines about a GPU, from PyTorch's properties of it."""
    rows = {
        "Device id:": number,
        "Major revision number:": facts.major,  # type: ignore[attr-defined]
        "Minor revision number:": facts.minor,  # type: ignore[attr-defined]
        "Name:": facts.name,  # type: ignore[attr-defined]
        "Total global memory:": facts.total_memory,  # type: ignore[attr-defined]
        "Number of multiprocessors:": facts.multi_processor_count,  # type: ignore[attr-defined]
    }
    return [f"{label:30} {value}" for label, value in rows.items()]


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
