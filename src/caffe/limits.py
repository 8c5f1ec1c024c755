"""What the machine's memory can hold: sizes beyond it are refused before anything is allocated."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["check_size", "memory_limit", "size_text"]

_SMALL = 1 << 28  # elements that are not worth a look at the machine
_MOST = (1 << 63) - 1  # bytes that torch can count
_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def check_size(what: str, shape: Sequence[int], error: Callable[[str], Any], device: object = "cpu") -> None:
    """Call `error` if an array of float32 of this shape, on the CPU, is larger than the memory available.

    `what` names the array in the message. An array that fits counts by itself: blobs of zeros take no memory until
    they are written, so a net whose blobs add up to more may still run.
    """
    count = math.prod(shape)
    if count < _SMALL or not str(device).startswith("cpu"):
        return
    size, limit = 4 * count, memory_limit()
    if size > limit:
        sizes = " x ".join(map(str, shape))
        error(
            f"{what} of shape {sizes} takes {size_text(size)}, and this machine has {size_text(limit)} of memory "
            "available; use smaller sizes"
        )


def size_text(size: int) -> str:
    """Bytes for messages: `42949672960 bytes (40.0 GiB)`."""
    return f"{size} bytes ({size / 2**30:,.1f} GiB)"


def memory_limit() -> int:
    """Bytes of memory and swap that the machine has available, within the limit of the process's cgroup."""
    return min(_available(), *map(_group_limit, _CGROUPS))


def _available() -> int:
    """Memory that can be had without writing other programs' memory to disk, and free swap."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        return (sizes["MemAvailable"] + sizes.get("SwapFree", 0)) * 1024
    except (OSError, ValueError, KeyError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not a Unix
        return _MOST


def _group_limit(path: str) -> int:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return _MOST
