"""The maker of the processor, on which the fastest of several libraries depends."""

from __future__ import annotations

import platform

__all__ = ["IS_INTEL"]


def _is_intel() -> bool:
    try:
        with open("/proc/cpuinfo") as info:
            return "GenuineIntel" in info.read(200)
    except OSError:  # not Linux
        return "intel" in platform.processor().lower()


IS_INTEL = _is_intel()
"""Whether the processor is Intel's, as far as the system tells. MKL is fast on these processors only."""
