"""L-BFGS with the whole data set and with small batches, compared with momentum and Adam: `course/updates_lbfgs.png`.

    python examples/course/lbfgs.py [--passes 150]

All runs train the same small net on 1,000 drawn digits, from the same initial weights. The axis counts passes over the
data, including those of line searches. The net gets each batch from Python. The batch does not change during a step, so
that a line search works. LBFGS raises an error if the batch changes at the next step; BatchLBFGS allows this.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from caffe.exercise.data import drawn_digits
from caffe.proto import caffe_pb2, text
from caffe.solver import get_solver
from caffe.solver.rules import Update
from caffe.solver.second_order import LBFGS

NET = """
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 1000 dim: 64 } shape { dim: 1000 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  inner_product_param { num_output: 20 weight_filler { type: "xavier" } } }
layer { name: "tanh" type: "TanH" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""
RUNS = {
    "L-BFGS, all 1,000": ('type: "LBFGS" base_lr: 1', 1000),
    "L-BFGS, batches of 50": ('type: "BatchLBFGS" base_lr: 1', 50),
    "L-BFGS, batches of 250": ('type: "BatchLBFGS" base_lr: 1', 250),
    "Momentum, all 1,000": ('type: "SGD" base_lr: 0.5 momentum: 0.9', 1000),
    "Momentum, batches of 50": ('type: "SGD" base_lr: 0.1 momentum: 0.9', 50),
    "Adam, batches of 50": ('type: "Adam" base_lr: 0.01 momentum: 0.9 momentum2: 0.999', 50),
}
"""The rule of each run and the size of its batches."""


class BatchLBFGS(LBFGS):
    """L-BFGS with another batch in each step. It does not reuse loss and gradient of the previous step."""

    def apply(self, updates: Iterable[Update], t: int, scale: float) -> None:
        self._known = None
        super().apply(updates, t, scale)


def feed(net: Any, images: np.ndarray, labels: np.ndarray) -> None:
    """Give the net a batch."""
    net.blobs["data"].reshape(*images.shape)
    net.blobs["label"].reshape(len(labels))
    net.blobs["data"].data[...] = images
    net.blobs["label"].data[...] = labels


def run(rule: str, batch: int, images: np.ndarray, labels: np.ndarray, passes: float) -> np.ndarray:
    """Rows of (passes over the data so far, loss on all data), until `passes`."""
    param = text.parse(f'{rule} lr_policy: "fixed" random_seed: 1', caffe_pb2.SolverParameter())
    param.solver_mode = param.CPU
    text.parse(NET, param.net_param)
    solver, looked = get_solver(param), [0]
    evaluate = solver.net.forward_backward

    def counted() -> float:
        looked[0] += len(solver.net.blobs["label"].data)
        return float(evaluate())

    solver.net.forward_backward = counted  # the solver and its line searches call it
    rng, rows, due = np.random.default_rng(1), [], 0.0
    while looked[0] < passes * len(labels):
        if looked[0] / len(labels) >= due:
            feed(solver.net, images, labels)
            rows.append((looked[0] / len(labels), float(solver.net.forward()["loss"])))
            due += 0.5
        chosen = slice(None) if batch == len(labels) else rng.choice(len(labels), batch, replace=False)
        feed(solver.net, images[chosen], labels[chosen])
        solver.step(1)
    return np.array(rows)


def main(argv: list[str] | None = None) -> dict[str, np.ndarray]:
    """Run all, draw the picture, print the losses at the end; returns the rows of each run."""
    from matplotlib.figure import Figure

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=float, default=150, help="over the data")
    parser.add_argument("--output", type=Path, default=Path("course"), help="folder")
    options = parser.parse_args(argv)
    images, labels = drawn_digits(1, 1000)
    images = (images.reshape(1000, 64) - images.mean()) / images.std()
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis, found = figure.subplots(), {}
    for name, (rule, batch) in RUNS.items():
        found[name] = run(rule, batch, images, labels, options.passes)
        axis.semilogy(*found[name].T, label=name, linestyle="-" if batch == 1000 else "--")
        print(f"{name}: loss {found[name][-1, 1]:.3g} after {found[name][-1, 0]:.1f} passes over the data")
    axis.set_xlabel("passes over the data, those of line searches included")
    axis.set_ylabel("loss on all training data")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    options.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output / "updates_lbfgs.png", dpi=90)
    return found


if __name__ == "__main__":
    main()
