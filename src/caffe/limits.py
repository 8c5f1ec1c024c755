"""Checks sizes against the machine's memory before anything is allocated."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

from caffe.errors import CaffeError

try:
    import resource
except ImportError:  # not a Unix
    resource = None  # type: ignore[assignment]

__all__ = ["PIXELS", "check_size", "limit_pixels", "memory_limit", "size_text", "unchecked", "why_undecodable"]

PIXELS = "OPENCV_IO_MAX_IMAGE_PIXELS"
"""OpenCV's environment variable for the most pixels that an image may have."""
_MOST_PIXELS = 1 << 28

_SMALL = 1 << 28  # arrays with fewer elements are not checked
_MOST = (1 << 63) - 1  # bytes that torch can count
_CHECKED = ContextVar("checked", default=True)
_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def check_size(
    what: str, shape: Sequence[int], error: Callable[[str], Any] | None = None, device: object = "cpu"
) -> None:
    """Call `error`, or raise a CaffeError, if an array of float32 of this shape is larger than the CPU's memory.

    `what` names the array in the message. Each array is checked separately: blobs of zeros use no memory until they
    are written, so a net whose blobs are larger in total may still run.
    """
    error = error or _refuse
    if any(size < 0 for size in shape):
        error(f"{what} cannot take the shape {tuple(shape)}; every size must be at least 0")
    count = math.prod(shape)
    if count < _SMALL or not str(device).startswith("cpu") or not _CHECKED.get():
        return
    size, limit = 4 * count, memory_limit()
    if size > limit:
        sizes = " x ".join(map(str, shape))
        error(
            f"{what} of shape {sizes} takes {size_text(size)}, and this machine has {size_text(limit)} of memory "
            "available; use smaller sizes"
        )


@contextmanager
def unchecked() -> Iterator[None]:
    """Leave out the comparison with the memory, for arrays that get none, such as those of a net on meta tensors."""
    token = _CHECKED.set(False)
    try:
        yield
    finally:
        _CHECKED.reset(token)


def _refuse(fact: str) -> NoReturn:
    raise CaffeError(fact)


def size_text(size: int) -> str:
    """Bytes for messages: `42949672960 bytes (40.0 GiB)`."""
    return f"{size} bytes ({size / 2**30:,.1f} GiB)"


def memory_limit() -> int:
    """Return the memory and swap available to the process in bytes, within the limits of the process and of its
    cgroup.
    """
    return min(_available(), _process_limit(), *map(_group_limit, _CGROUPS))


def _process_limit() -> int:
    """Return the memory that `ulimit -v` allows the process in addition to what it has mapped already."""
    if resource is None:
        return _MOST
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return _MOST
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        pages = 0
    return max(0, limit - pages * os.sysconf("SC_PAGE_SIZE"))


def _available() -> int:
    """Return the memory available without swapping out other programs, plus the free swap."""
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


def limit_pixels() -> None:
    """Set OpenCV's limit for the size of images, unless the user has set it.

    A file of a few kB can contain gigabytes of equal pixels.

    OpenCV reads the variable when it is imported.
    """
    os.environ.setdefault(PIXELS, str(_MOST_PIXELS))


def why_undecodable(error: Exception) -> str:
    """Describe an exception of OpenCV's decoder."""
    if "CV_IO_MAX_IMAGE" not in str(error):
        return str(error)
    most = os.environ.get(PIXELS, "its limit")
    return (
        f"it has more pixels than {most}, or a side of more than 1048576; scale it down, or set the environment "
        f"variable {PIXELS} to a larger number"
    )
