"""Runs the benchmarks in their short forms, one after the other, each in a process of its own.

python -m benchmarks            all of them
python -m benchmarks update     one, with further arguments passed on
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

SHORT = {
    "training": ["-nets", "lenet,cifar_quick", "-rounds", "3"],
    "data": ["--rounds", "2", "--seconds", "1"],
    "update": ["--rounds", "5"],
    "rules": ["--seconds", "2"],
}
"""What `make bench` runs, with the arguments that keep it short."""


def main() -> int:
    """Run the benchmarks named on the command line, or all; returns the worst exit code."""
    if len(sys.argv) > 1:
        return run(sys.argv[1], sys.argv[2:])
    present = [name for name in SHORT if importlib.util.find_spec(f"benchmarks.{name}")]
    return max(run(name, SHORT[name]) for name in present)


def run(name: str, arguments: list[str]) -> int:
    """Run one benchmark and return its exit code."""
    print(f"\n## {name}\n", flush=True)
    return subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
