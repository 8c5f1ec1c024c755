"""Runs the benchmarks one after the other, each in a process of its own.

python -m benchmarks                        all of them; the tables and pictures are in benchmarks/results
python -m benchmarks -minutes 30            the same, with another limit than 45 minutes
python -m benchmarks -short                 a version of three minutes, which writes nothing
python -m benchmarks training -nets lenet   one, with its own arguments
python -m benchmarks report                 only the tables and pictures, from the stored figures

A part that fails, or that reaches the limit, does not stop the others. The last lines are the time that each part took,
and how it ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

MINUTES = 45.0


@dataclass(frozen=True)
class Part:
    """What a full run does of a benchmark: its arguments, and an estimate of the minutes on two processors.

    The estimate includes the compilers, which take a half of `training`.
    """

    arguments: tuple[str, ...]
    minutes: float


FULL = {
    "limits": Part((), 0.5),
    "training": Part((), 16),
    "small": Part((), 4),
    "layers": Part((), 2.5),
    "building": Part((), 2),
    "memory": Part((), 3.5),
    "data": Part(("--rounds", "3"), 1.5),
    "nms": Part(("--rounds", "5"), 1),
    "detection": Part(("--seconds", "2"), 1),
    "growth": Part((), 1),
    "loading": Part((), 1),
    "update": Part((), 0.5),
    "parallel": Part(("lenet,cifar_quick", "3"), 1),
    "inference": Part(("-seconds", "0.15"), 3),
    "single": Part(("-seconds", "0.1"), 3),
    "rewrites": Part(("-rounds", "5"), 2),
    "rules": Part((), 1),
}
"""The parts that goals refer to come first."""
FEW = ("-rounds", "1", "-seconds", "0.05")
SHORT = {
    "limits": ("-short",),
    "training": ("-nets", "lenet,lstm", "-engines", "bf16,eager,tuned,real", "-threads", "1", *FEW),
    "inference": ("-nets", "lenet", "-threads", "2", *FEW),
    "single": ("-nets", "lenet", "-threads", "1", *FEW),
    "small": ("-nets", "mlp", "-engines", "eager,tuned", "-threads", "1", *FEW),
    "layers": ("-nets", "lenet,onet", "-threads", "1", *FEW),
    "loading": FEW,
    "memory": ("-nets", "lenet"),
    "building": ("-short",),
    "growth": ("-short",),
    "rewrites": ("-nets", "cifar_quick", "-rounds", "3"),
    "nms": ("--rounds", "1", "--dry"),
    "data": ("--rounds", "1", "--seconds", "0.5"),
}


def main(argv: list[str]) -> int:
    """Run the benchmarks named on the command line; returns the worst exit code."""
    if argv in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    if argv and not argv[0].startswith("-"):
        if argv[0] not in (*FULL, "report"):
            sys.exit(f"benchmarks: no benchmark {argv[0]}; expected one of {', '.join([*FULL, 'report'])}")
        return run(argv[0], argv[1:])
    if argv == ["-short"]:
        return everything({name: Part(arguments, 0) for name, arguments in SHORT.items()}, MINUTES)
    return everything(FULL, limit(argv))


def limit(argv: list[str]) -> float:
    """The minutes after `-minutes`, or 45."""
    if not argv:
        return MINUTES
    with contextlib.suppress(ValueError):
        if len(argv) == 2 and argv[0].lstrip("-") == "minutes" and float(argv[1]) > 0:
            return float(argv[1])
    sys.exit(f"benchmarks: unknown arguments {' '.join(argv)}\n\n{__doc__}")


def everything(parts: dict[str, Part], minutes: float) -> int:
    """Run the parts within the limit, print how each ended, and return the worst exit code."""
    begun = time.monotonic()
    ended: dict[str, tuple[float, str]] = {}
    codes = [0]
    for name, part in parts.items():
        left = 60 * minutes - (time.monotonic() - begun)
        if left < 60 * part.minutes / 2:
            ended[name] = 0.0, f"left out: {left / 60:.1f} of {minutes:g} minutes were left"
            codes.append(1)
            continue
        start = time.monotonic()
        code = run(name, list(part.arguments), left)
        codes.append(code)
        ended[name] = time.monotonic() - start, "" if not code else f"FAILED, exit code {code}"
        if code == STOPPED:
            ended[name] = ended[name][0], f"stopped at the limit of {minutes:g} minutes"
    total = time.monotonic() - begun
    print("\n| part | seconds | |\n| --- | ---: | --- |")
    print("\n".join(f"| {name} | {took:.0f} | {how} |" for name, (took, how) in ended.items()))
    print(f"| all | {total:.0f} | {'' if not max(codes) else 'not complete'} |", flush=True)
    return max(codes)


STOPPED = 124
"""The exit code of a part that reached the limit."""


def run(name: str, arguments: list[str], seconds: float | None = None) -> int:
    """Run one benchmark and return its exit code. Its processes are ended too, also at the time limit."""
    print(f"\n## {name}\n", flush=True)
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{name}", *arguments]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        return abs(process.wait(seconds))
    except subprocess.TimeoutExpired:
        return STOPPED
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
