"""The load of the machine: processors, memory, graphics cards."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["System"]

_CARD = ("utilization.gpu", "memory.used", "memory.total", "temperature.gpu", "name")


class System:
    """Queries the system at most every two seconds, for any number of pages."""

    def __init__(self) -> None:
        self._cpu: tuple[float, float] = (0.0, 0.0)
        self._at = 0.0
        self._last: dict[str, Any] = {}

    def load(self) -> dict[str, Any]:
        """Return "cpu" and "memory" as fractions, and "gpus" with load, memory (bytes), temperature and name.

        Values that the system does not provide are None.
        """
        if time.monotonic() - self._at > 2:
            self._last = {"cpu": self._processors(), "memory": _memory(), "gpus": _cards(), "cores": os.cpu_count()}
            self._at = time.monotonic()
        return self._last

    def _processors(self) -> float | None:
        try:
            fields = [float(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        except OSError:
            return None
        idle, total = fields[3] + fields[4], sum(fields)
        (before_idle, before), self._cpu = self._cpu, (idle, total)
        return 1 - (idle - before_idle) / (total - before) if total > before else None


def _memory() -> dict[str, int] | None:
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        return None
    return {"used": total - free, "total": total}


def _cards() -> list[dict[str, Any]]:
    if shutil.which("nvidia-smi") is None:
        return []
    words = ["nvidia-smi", f"--query-gpu={','.join(_CARD)}", "--format=csv,noheader,nounits"]
    cards = []
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        for line in subprocess.run(words, capture_output=True, text=True, timeout=3, check=True).stdout.splitlines():
            load, used, total, heat, name = [word.strip() for word in line.split(",", 4)]
            cards.append(
                {"name": name, "load": _share(load), "used": _bytes(used), "total": _bytes(total), "heat": heat}
            )
    return cards


def _share(text: str) -> float | None:
    return float(text) / 100 if text.isdigit() else None


def _bytes(text: str) -> int | None:
    return int(text) << 20 if text.isdigit() else None
