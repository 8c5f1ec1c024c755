"""Compares the weights after training with several processes with those of one process, and with effects of rounding.

    python -m benchmarks.trajectories [PROCESSES] [NAME...]

LeNet is trained for 100 steps of 64 records by one process, and by PROCESSES processes of 64 / PROCESSES records each.
Two controls with one process change only the order of float32 sums: one permutes the records of each batch, the other
uses two threads. "Smooth" is the net with TanH and AVE pooling instead of ReLU and MAX pooling, at whose kinks a
rounding error can select another branch. The figures are the largest difference of a weight, divided by the largest
weight of its blob, after some steps.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.arguments import check_names

BATCH, STEPS = 64, 100
LOOKS = (1, 10, 30, 100)
SOLVERS = {
    "SGD": 'type: "SGD" base_lr: 0.01 momentum: 0.9',
    "Adam": 'type: "Adam" base_lr: 0.001 momentum: 0.9',
    "LARS": 'type: "LARS" base_lr: 5 momentum: 0.9',
    "SGD, iter_size 2, clipped": 'type: "SGD" base_lr: 0.01 momentum: 0.9 iter_size: 2 clip_gradients: 1',
    "SGD, smooth": 'type: "SGD" base_lr: 0.01 momentum: 0.9',
}
_NET = """
layer {{ name: "rows" type: "ArrayData" top: "data" top: "label" array_data_param {{ source: "{file}"
  batch_size: {batch} }} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1" convolution_param {{ num_output: 20
  kernel_size: 5 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param {{ kernel_size: 2 stride: 2 }} }}
layer {{ name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2" convolution_param {{ num_output: 50
  kernel_size: 5 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2" pooling_param {{ kernel_size: 2 stride: 2 }} }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "pool2" top: "ip1" inner_product_param {{ num_output: 500
  weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }}
layer {{ name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" inner_product_param {{ num_output: 10
  weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }}
"""


def main() -> int:
    """Train all, or those of these names, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("processes", nargs="?", type=int, default=4, help="number of processes; default: 4")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of {', '.join(map(repr, SOLVERS))}; default: all"
    )
    given = parser.parse_args()
    count, names = given.processes, given.names
    check_names(parser, "run", names, SOLVERS)
    if not 1 <= count <= BATCH:
        parser.error(f"expected 1 to {BATCH} processes, got {count}")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        _write_data()
        for name in names or SOLVERS:
            options = SOLVERS[name]
            smooth = "smooth" in name
            passes = 2 if "iter_size" in options else 1
            whole = _run(smooth, options, "rows.npz", BATCH // passes, 1, 1)
            # a step of two passes takes the same records, so their order between the passes may change as well
            others = {
                f"{count} processes": _run(smooth, options, "rows.npz", BATCH // passes // count, count, 1),
                "records permuted": _run(smooth, options, "permuted.npz", BATCH // passes, 1, 1),
                "two threads": _run(smooth, options, "rows.npz", BATCH // passes, 1, 2),
            }
            for what, found in others.items():
                shown = ", ".join(f"{_apart(whole[step], found[step]):.1e}" for step in LOOKS)
                print(f"{name:26} {what:18} after {LOOKS} steps: {shown}", flush=True)
    return 0


def _write_data() -> None:
    """Write noisy pictures of ten classes, and a second file in which the pictures of each batch are permuted."""
    rng = np.random.default_rng(1)
    count = BATCH * STEPS
    labels = rng.integers(0, 10, count)
    pictures = rng.random((10, 1, 28, 28), np.float32)[labels] * 0.5 + rng.random((count, 1, 28, 28), np.float32)
    np.savez("rows.npz", data=pictures, label=labels)
    order = np.concatenate([start + rng.permutation(BATCH // 2) for start in range(0, count, BATCH // 2)])
    np.savez("permuted.npz", data=pictures[order], label=labels[order])


Weights = dict[str, np.ndarray]


def _run(smooth: bool, options: str, file: str, batch: int, processes: int, threads: int) -> dict[int, Weights]:
    """Return the weights after each of the steps `LOOKS`."""
    net = _NET.format(file=file, batch=batch)
    if smooth:
        net = net.replace('"ReLU"', '"TanH"').replace("kernel_size: 2", "pool: AVE kernel_size: 2")
    common = 'lr_policy: "fixed" weight_decay: 0.0005 random_seed: 5 solver_mode: CPU max_iter: 100'
    Path("solver.prototxt").write_text(f"{common} {options} net_param {{ {net} }}")
    start = ["-m", "benchmarks.trajectories", "worker"]
    code = f"from caffe.parallel.launch import launch; raise SystemExit(launch({start!r}, {processes}, {processes}))"
    command = [sys.executable, *start] if processes == 1 else [sys.executable, "-c", code]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, stderr=subprocess.DEVNULL)
    found = {}
    for step in LOOKS:
        with np.load(f"weights_{step}.npz") as arrays:
            found[step] = dict(arrays)
    return found


def worker() -> None:
    """Train in this process, and write the weights."""
    from caffe.parallel import environment, group
    from caffe.solver import get_solver

    processes = environment.join(limit=120)
    with group.joined(processes):
        solver = get_solver("solver.prototxt")
        solver.net.slim()
        for step in LOOKS:
            solver.step(step - solver.iter)
            if not processes.rank:
                np.savez(
                    f"weights_{step}.npz",
                    **{f"{entry.layer}{entry.index}": entry.tensor.detach().numpy() for entry in solver.net.learnable},
                )
    processes.leave()


def _apart(one: Weights, other: Weights) -> float:
    return max(float(np.abs(other[name] - value).max() / np.abs(value).max()) for name, value in one.items())


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker()
    else:
        raise SystemExit(main())
