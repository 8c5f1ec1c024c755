"""Runs the benchmarks one after the other, each in a process of its own.

python -m benchmarks                        all of them; the tables and pictures are in benchmarks/results
python -m benchmarks -short                 a two-minute version of each, which writes nothing
python -m benchmarks training -nets lenet   one, with its own arguments
python -m benchmarks report                 only the tables and pictures, from the stored figures
"""

from __future__ import annotations

import subprocess
import sys

FULL: dict[str, list[str]] = {
    "limits": [],
    "training": [],
    "inference": [],
    "single": [],
    "small": [],
    "layers": [],
    "loading": [],
    "memory": [],
    "building": [],
    "growth": [],
    "rewrites": [],
    "update": [],
    "rules": [],
    "nms": [],
    "data": ["--rounds", "3"],
}
FEW = ["-rounds", "1", "-seconds", "0.05"]
SHORT: dict[str, list[str]] = {
    "limits": ["-short"],
    "training": ["-nets", "lenet", "-threads", "1", *FEW],
    "inference": ["-nets", "lenet,googlenet", "-threads", "2", *FEW],
    "single": ["-nets", "lenet,onet", "-threads", "1", *FEW],
    "small": ["-nets", "mlp,lstm", "-threads", "1", *FEW],
    "layers": ["-nets", "lenet,onet", "-threads", "1", *FEW],
    "loading": FEW,
    "memory": ["-nets", "lenet"],
    "building": ["-short"],
    "growth": ["-short"],
    "rewrites": ["-nets", "cifar_quick", "-rounds", "3"],
    "nms": ["--rounds", "1", "--dry"],
    "data": ["--rounds", "1", "--seconds", "0.5"],
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
    if argv not in ([], ["-short"]):
        sys.exit(f"benchmarks: unknown arguments {' '.join(argv)}\n\n{__doc__}")
    return max(run(name, arguments) for name, arguments in (SHORT if argv else FULL).items())


def run(name: str, arguments: list[str]) -> int:
    """Run one benchmark and return its exit code."""
    print(f"\n## {name}\n", flush=True)
    return subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
