"""python -m tests.ownership: runs many sequences and prints those that fail."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter

os.environ.setdefault("GLOG_minloglevel", "2")

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def real_command(arguments):
    """The command and environment that run the package in the original Caffe."""
    python = os.environ.get("CAFETIERE_REAL_CAFFE")
    if not python:
        sys.exit("--mode real: set CAFETIERE_REAL_CAFFE to a Python that has the original pycaffe")
    return [python, "-W", "ignore", "-m", "tests.ownership", *arguments], {**os.environ, "PYTHONPATH": ROOT}


def parsed(arguments=None):
    parser = argparse.ArgumentParser("python -m tests.ownership", description=__doc__)
    parser.add_argument("--sequences", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="the first sequence's; the others follow")
    parser.add_argument("--length", type=int, default=15, help="operations in a sequence")
    parser.add_argument("--without", default="", help="operations and layer types to leave out, with commas")
    parser.add_argument("--show", type=int, default=3, help="how many failing sequences to print as scripts")
    parser.add_argument("--brief", action="store_true", help="print nets and operations only, not whole scripts")
    parser.add_argument("--mode", choices=("own", "real", "compile", "openvino"), default="own", help="see the package")
    return parser.parse_args(arguments)


def main():
    """Returns 1 where a sequence fails."""
    options = parsed()
    if options.mode == "real" and sys.version_info >= (3, 11):
        command, environment = real_command(sys.argv[1:])
        return subprocess.run(command, env=environment, cwd=ROOT).returncode
    from tests.ownership.runner import run, shrunk
    from tests.ownership.sequences import Drawer

    begin, failed, fragile, kinds, shown, count = time.time(), 0, 0, Counter(), 0, 0
    seen = Counter()
    for seed in range(options.seed, options.seed + options.sequences):
        result = run(Drawer(seed, options.length, options.mode, options.without.split(",")))
        fragile += result.fragile
        count += len(result.ops)
        seen.update(type(op).__name__ for op in result.ops)
        if result.failure is None:
            continue
        failed += 1
        kind = re.sub(r"[\d.]+", "#", result.failure)[:80]
        kinds[re.sub(r"\[.*", "", kind)] += 1
        if shown < options.show:
            shown += 1
            found = shrunk(result)
            print(f"--- seed {seed}\n{found.brief() if options.brief else found.script()}", flush=True)
    spent = time.time() - begin
    print(f"{options.sequences} sequences, {count} operations, {failed} failed, {fragile} fragile, {spent:.1f} s")
    print(", ".join(f"{name} {number}" for name, number in sorted(seen.items())))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
