"""Kills one of two processes under torchrun at random moments, and compares the weights with an uninterrupted run.

    python -m benchmarks.parallel_kill SOLVER [KILLS]

The solver must set snapshot, max_iter and random_seed; its data must be in the working directory.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from caffe.proto import upgrade


def main() -> int:
    """Make both runs and print whether the final weights are equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("solver", help="a solver prototxt")
    parser.add_argument("kills", nargs="?", type=int, default=10, help="how often; default: 10")
    given = parser.parse_args()
    solver: str = given.solver
    if not Path(solver).is_file():
        parser.error(f"there is no file {solver}")
    param = upgrade.read_solver(solver)
    last = Path(f"{param.snapshot_prefix}_iter_{param.max_iter}.caffemodel")
    _clear(param)
    begin = time.monotonic()
    subprocess.run([sys.executable, "-m", "caffe", "train", "-solver", solver, "-procs", "2"], check=True)
    seconds = time.monotonic() - begin
    whole = last.read_bytes()
    _clear(param)
    killed = _broken_run(solver, given.kills, seconds)
    same = last.read_bytes() == whole
    fact = "equal to" if same else "DIFFERENT from"
    print(f"{killed} kills; weights {fact} those of the run without, {len(whole)} bytes")
    return 0 if same else 1


def _broken_run(solver: str, kills: int, seconds: float) -> int:
    """Train under torchrun and kill a process at `kills` random moments; returns the number of kills."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--max-restarts={3 * kills}"]
    command += ["--monitor-interval=0.1", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    command += ["-m", "caffe", "train", "-solver", solver, "-snapshot", "auto", "-timeout", "60"]
    run = subprocess.Popen(command)
    rng, killed = random.Random(7), 0
    while run.poll() is None and killed < kills:
        time.sleep(rng.uniform(0.3, 1.0) * max(8.0, seconds / 4))
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        if children and run.poll() is None:
            victim = int(rng.choice(children))
            print(f"killing {victim}", flush=True)
            os.kill(victim, signal.SIGKILL)
            killed += 1
    if run.wait(timeout=20 * seconds + 600):
        raise SystemExit(f"torchrun ended with {run.returncode}")
    return killed


def _clear(param: object) -> None:
    prefix = Path(str(param.snapshot_prefix))  # type: ignore[attr-defined]
    for path in prefix.parent.glob(f"{prefix.name}_iter_*"):
        path.unlink()


if __name__ == "__main__":
    raise SystemExit(main())
