"""Runs many sequences and prints those that fail, as scripts of plain pycaffe."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter

if __name__ == "__main__":
    os.environ.setdefault("GLOG_minloglevel", "2")  # before caffe is imported

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def real_command(arguments):
    """Return the command and environment that run the package with the original Caffe."""
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
    parser.add_argument("--first", action="store_true", help="stop at the first sequence that fails")
    parser.add_argument("--brief", action="store_true", help="print nets and operations only, not whole scripts")
    parser.add_argument(
        "--mode",
        choices=("own", "real", "compile", "openvino", "mirror"),
        default="own",
        help="real: in the original Caffe; compile, openvino: with those operations, too; mirror: arrays are copies",
    )
    return parser.parse_args(arguments)


def report(result, options, shrunk):
    """Print the shortest failing version of a sequence."""
    found = shrunk(result)
    print(f"--- seed {result.seed}\n{found.brief() if options.brief else found.script()}", flush=True)


def main():
    """Returns 1 where a sequence fails."""
    options = parsed()
    if options.mode == "real" and sys.version_info >= (3, 11):
        command, environment = real_command(sys.argv[1:])
        return subprocess.run(command, env=environment, cwd=ROOT).returncode
    from tests.ownership.runner import mirrored, run, shrunk
    from tests.ownership.sequences import Drawer

    if options.mode == "mirror":
        mirrored(setattr)
    begin, failed, fragile, seen = time.time(), 0, 0, Counter()
    for seed in range(options.seed, options.seed + options.sequences):
        result = run(Drawer(seed, options.length, options.mode, options.without.split(",")))
        fragile += result.fragile
        seen.update(type(op).__name__ for op in result.ops)
        if result.failure is not None:
            failed += 1
            result.seed = seed
            if failed <= options.show:
                report(result, options, shrunk)
            if options.first:
                print(f"sequence {seed} fails: {result.failure}")
                break
    print(", ".join(f"{name} {number}" for name, number in sorted(seen.items())))
    spent, total = time.time() - begin, sum(seen.values())
    print(f"{options.sequences} sequences, {total} operations, {failed} failed, {fragile} fragile, {spent:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
