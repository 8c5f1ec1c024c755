"""Runs damaged inputs of every kind, and reports those that end neither in success nor in one clear error.

    python tools/fuzz --count 1000 --seed 0           # 1,000 inputs of each kind
    python tools/fuzz --kind lmdb,weights --seconds 60
    python tools/fuzz --one lmdb:17                   # one input again, in this process, with its traceback

Findings are crashes of the process, hangs (10 s), more than 4 GB of memory, exceptions other than CaffeError,
commands that end with exit code 70, and weights that a damaged file silently leaves unchanged. The inputs of a seed are
always the same. The exit code is 1 if there are findings.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, ROOT / "src"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tools.fuzz import seeds  # noqa: E402
from tools.fuzz.kinds import KINDS  # noqa: E402
from tools.fuzz.pool import Finding, Pool, run_one  # noqa: E402


def load() -> list[str]:
    """Import the modules with the kinds and their dependencies; returns the names of the kinds."""
    import caffe.cli.command
    from tools.fuzz import data, nets, stored, texts  # noqa: F401

    caffe.cli.command.commands()
    return list(KINDS)


def folder_of_seeds(parent: str) -> Path:
    """Create the seeds in a separate process, because this one must not run a layer before it is forked."""
    folder = Path(parent) / "seeds"
    folder.mkdir()
    maker = multiprocessing.get_context("fork").Process(target=seeds.make, args=(folder,))
    maker.start()
    maker.join()
    if maker.exitcode:
        raise SystemExit(f"the seeds could not be made: exit code {maker.exitcode}")
    return folder


def memory_folder() -> str | None:
    """Return a folder for scratch files in memory, if there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def fuzz(
    names: list[str], first: int, count: int, seconds: float | None = None, workers: int | None = None
) -> tuple[dict[str, int], list[Finding]]:
    """Run inputs; returns the number of inputs of each kind, and the findings."""
    found: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="caffe-fuzz-", dir=memory_folder()) as parent:
        pool = Pool(folder_of_seeds(parent), workers or os.cpu_count() or 1, found.append)
        pool.run(names, first, count, seconds)
    return pool.done, found


def report(done: dict[str, int], found: list[Finding], seconds: float) -> None:
    """Print the findings, grouped by fault, and the figures."""
    faults: dict[tuple[str, str, str], list[Finding]] = defaultdict(list)
    for finding in found:
        faults[finding.what, finding.kind, finding.fact].append(finding)
    for (what, name, fact), same in sorted(faults.items(), key=lambda pair: -len(pair[1])):
        numbers = " ".join(f"--one {name}:{finding.seed}" for finding in sorted(same, key=lambda f: f.seed)[:3])
        print(f"{len(same):5} {what:18} {name}: {fact}\n      {numbers}")
    classes: dict[str, int] = defaultdict(int)
    for finding in found:
        classes[finding.what] += 1
    total = sum(done.values())
    print(f"{total} inputs in {seconds:.0f} s ({total / seconds:.0f} a second): {dict(sorted(done.items()))}")
    print(f"{len(found)} findings: {dict(classes) or 'none'}")


def one(text: str) -> int:
    """Run one input in this process."""
    name, _, seed = text.partition(":")
    with tempfile.TemporaryDirectory(prefix="caffe-fuzz-", dir=memory_folder()) as parent:
        finding = run_one(name, int(seed), folder_of_seeds(parent))
    print(f"{finding.what}: {finding.fact}\n{finding.detail}" if finding else "no finding")
    return finding is not None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = load()
    parser.add_argument("--count", type=int, default=1000, help="inputs of each kind")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seconds", type=float, help="start no further inputs after this time")
    parser.add_argument("--kind", default=",".join(names), help=f"some of {', '.join(names)}")
    parser.add_argument("--workers", type=int, help="number of processes; by default that of the cores")
    parser.add_argument("--one", metavar="KIND:SEED", help="run one input in this process")
    given = parser.parse_args()
    if given.one:
        return one(given.one)
    kinds = given.kind.split(",")
    unknown = set(kinds) - set(names)
    if unknown:
        parser.error(f"unknown kind {', '.join(sorted(unknown))}; known: {', '.join(names)}")
    start = time.monotonic()
    done, found = fuzz(kinds, given.seed, given.count, given.seconds, given.workers)
    report(done, found, time.monotonic() - start)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
