"""Every update rule and every schedule on three problems: iterations and seconds to a fixed loss.

    python -m benchmarks.rules [--seconds 20] [--only SGD,Adam,plateau] [--threads 1]

The problems are LeNet on 1,000 digits of MNIST; a quadratic with curvatures from 1 to 1,000 (least squares, not aligned
with the weights); and the deep autoencoder of the examples, a quarter as wide, on the same digits. Rules keep their
rate fixed; the rates were set by hand after a few trials, not searched. Schedules control SGD with momentum. The table
therefore shows that each works and how it behaves; it is not a ranking. Rules with a line search get all 1,000 digits
in every batch. --seconds limits the time of a run; a run that ends before the goal shows the loss it reached.

Writes benchmarks/results/rules.md and rules.png.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

import caffe
from benchmarks.arguments import check_names, words
from caffe import log
from caffe.data.tools import mnist
from caffe.proto import caffe_pb2, text, upgrade
from caffe.solver import Solver, Watcher, get_solver

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
DIGITS = 1000

RULES = {
    "SGD": ("momentum: 0.9", 0.05, 1.5e-3, 0.02),
    "Nesterov": ("momentum: 0.9", 0.05, 1e-3, 0.02),
    "AdaGrad": ("", 0.02, 0.5, 0.05),
    "RMSProp": ("rms_decay: 0.95", 2e-3, 7e-4, 1e-3),
    "AdaDelta": ("momentum: 0.95 delta: 1e-6", 1.0, 3.0, 3.0),
    "Adam": ("momentum: 0.9", 2e-3, 0.05, 1e-3),
    "AdamW": ("momentum: 0.9 weight_decay: 0.01", 2e-3, 0.05, 1e-3),
    "NAdam": ("momentum: 0.9", 2e-3, 0.01, 1e-3),
    "Lion": ("momentum: 0.9 momentum2: 0.99", 1e-3, 7e-4, 1e-3),
    "Muon": ("momentum: 0.9", 5e-3, 2e-3, 0.02),
    "LARS": ("momentum: 0.9 trust_coefficient: 0.02", 0.5, 0.02, 0.5),
    "LAMB": ("momentum: 0.9", 0.01, 0.02, 0.005),
    "LBFGS": ("", 1.0, 1.0, 1.0),
    "BFGS": ("", 1.0, 1.0, 1.0),
    "Newton": ("", 1.0, 1.0, 1.0),
}
"""Settings of each rule, and its rates on the three problems."""

SEARCHES = ("LBFGS", "BFGS", "Newton")
POLICIES = {
    "fixed": "",
    "step": "gamma: 0.5 stepsize: {third}",
    "exp": "gamma: {decay}",
    "inv": "gamma: {slow} power: 0.75",
    "multistep": "gamma: 0.5 stepvalue: {third} stepvalue: {twothirds}",
    "poly": "power: 1",
    "sigmoid": "gamma: 0.1 stepsize: {tenth}",
    "inversetime": "gamma: {slow}",
    "exponential": "gamma: {slow}",
    "cosineannealing": "cycle: {third} cycle_mult: 2",
    "onecycle": "",
    "plateau": "patience: 1 test_iter: 1 test_interval: {tenth}",
}
"""Schedules of the rate. The words in braces are fractions of max_iter."""

OTHERS = {
    "warm-up": 'lr_policy: "fixed" warmup_iter: {tenth}',
    "momentum linear": 'lr_policy: "fixed" momentum_policy: "linear" momentum_start: 0.5 momentum_end: 0.95 '
    "momentum_iter: {third}",
    "momentum sutskever": 'lr_policy: "fixed" momentum_policy: "sutskever" momentum_start: 0.5 momentum_end: 0.95 '
    "momentum_iter: {tenth}",
    "momentum onecycle": 'lr_policy: "onecycle" momentum_policy: "onecycle" momentum_start: 0.95 momentum_end: 0.85',
}


@dataclass
class Problem:
    """A net to train: its column, the target loss, the most iterations, and over how many the loss is averaged."""

    name: str
    column: int
    goal: float
    max_iter: int
    average: int
    net: caffe_pb2.NetParameter
    full: caffe_pb2.NetParameter
    """The net with all its data in every batch."""


@dataclass
class Run(Watcher):
    """The result of one run; stops the solver when the goal or the time limit is reached."""

    problem: Problem
    seconds: float
    average: int
    losses: list[float] = field(default_factory=list)
    reached: bool = False
    note: str = ""
    start: float = field(default_factory=time.perf_counter)
    end: float = 0.0

    def iterated(self, solver: Solver, iteration: int, loss: float, rate: float) -> None:
        self.losses.append(loss)
        self.end = time.perf_counter()
        self.reached = self.smoothed() <= self.problem.goal
        if self.reached or self.end - self.start > self.seconds or not np.isfinite(loss):
            solver.request("stop")

    def smoothed(self) -> float:
        """The mean of the last `average` losses; infinite if there are fewer."""
        return float(np.mean(self.losses[-self.average :])) if len(self.losses) >= self.average else np.inf

    def cell(self) -> str:
        """Format the result: iterations and seconds, or the loss reached."""
        if self.note or not self.losses:
            return self.note or "none"
        took = self.end - self.start
        if self.reached:
            return f"{len(self.losses)} / {took:.2f} s"
        return f"({self.smoothed():.3g} after {len(self.losses)})"


def problems(folder: Path) -> list[Problem]:
    """Return the three problems, with their data in `folder`."""
    write_digits(folder)
    lenet = upgrade.read_net(ROOT / "examples/mnist/lenet_train_test.prototxt")
    autoencoder = narrow(upgrade.read_net(ROOT / "examples/mnist/mnist_autoencoder.prototxt"))
    square = quadratic(folder)
    return [
        Problem("LeNet", 0, 0.1, 600, 10, on_digits(lenet, folder, 64), on_digits(lenet, folder, DIGITS)),
        Problem("quadratic", 1, 1e-3, 5000, 1, square, square),
        Problem(
            "autoencoder", 2, 190.0, 600, 10, on_digits(autoencoder, folder, 50), on_digits(autoencoder, folder, DIGITS)
        ),
    ]


def write_digits(folder: Path) -> None:
    """Write 1,000 digits, scaled to 0..1, to digits.h5."""
    mnist.make(folder)
    param = caffe_pb2.NetParameter()
    layer = param.layer.add(name="data", type="Data", top=["data", "label"])
    layer.transform_param.scale = 1 / 255
    layer.data_param.source, layer.data_param.batch_size = str(folder / "mnist_train_lmdb"), DIGITS
    layer.data_param.backend = layer.data_param.LMDB
    net = caffe.Net(param, caffe.TRAIN, device="cpu")
    net.forward()
    with h5py.File(folder / "digits.h5", "w") as file:
        file["data"], file["label"] = net.blobs["data"].data, net.blobs["label"].data
    net.close()
    (folder / "list.txt").write_text(f"{folder}/digits.h5\n")


def on_digits(given: Any, folder: Path, batch: int) -> caffe_pb2.NetParameter:
    """Return a net of the examples with its data layers replaced by one of digits.h5 for both phases."""
    net = caffe_pb2.NetParameter(name=given.name)
    data = net.layer.add(name="data", type="HDF5Data", top=["data", "label"])
    data.hdf5_data_param.source, data.hdf5_data_param.batch_size = str(folder / "list.txt"), batch
    data.hdf5_data_param.shuffle = batch < DIGITS
    net.layer.add(name="labels", type="Silence", bottom=["label"])
    net.layer.extend(layer for layer in given.layer if layer.type != "Data")
    return net


def quadratic(folder: Path) -> caffe_pb2.NetParameter:
    """Return |X w - y|^2 / 2N with 30 second derivatives X'X / N from 1 to 1,000 in equal ratios, not aligned with the
    weights.
    """
    rng = np.random.default_rng(3)
    left = np.linalg.qr(rng.standard_normal((60, 30)))[0]
    right = np.linalg.qr(rng.standard_normal((30, 30)))[0]
    x = 60**0.5 * left @ np.diag(np.logspace(0, 1.5, 30)) @ right
    with h5py.File(folder / "quadratic.h5", "w") as file:
        file["x"], file["y"] = x.astype(np.float32), x.sum(axis=1, keepdims=True).astype(np.float32)
    (folder / "quadratic.txt").write_text(f"{folder}/quadratic.h5\n")
    net = caffe_pb2.NetParameter(name="quadratic")
    data = net.layer.add(name="data", type="HDF5Data", top=["x", "y"])
    data.hdf5_data_param.source, data.hdf5_data_param.batch_size = str(folder / "quadratic.txt"), 60
    product = net.layer.add(name="w", type="InnerProduct", bottom=["x"], top=["xw"]).inner_product_param
    product.num_output, product.bias_term = 1, False
    product.weight_filler.type, product.weight_filler.std = "gaussian", 0.1
    net.layer.add(name="loss", type="EuclideanLoss", bottom=["xw", "y"], top=["loss"])
    return net


def narrow(given: Any) -> Any:
    """Return the net with every inner layer except the code a quarter as wide."""
    for layer in given.layer:
        if layer.type == "InnerProduct" and layer.inner_product_param.num_output not in (30, 784):
            layer.inner_product_param.num_output //= 4
    return given


def train(problem: Problem, settings: str, search: bool, seconds: float) -> Run:
    """Run until the goal or the time limit is reached."""
    param = text.parse(settings, caffe_pb2.SolverParameter())
    param.max_iter, param.random_seed, param.solver_mode = problem.max_iter, 1, param.CPU
    param.snapshot_after_train = param.test_initialization = False
    param.net_param.CopyFrom(problem.full if search else problem.net)
    run = Run(problem, seconds, 1 if search else problem.average)
    try:
        solver = get_solver(param, "cpu")
    except caffe.CaffeError as error:
        run.note = "too many weights" if "works for at most" in str(error) else str(error)
        return run
    solver.watchers.append(run)
    run.start = time.perf_counter()
    solver.step(problem.max_iter)
    for net in (solver.net, *solver.test_nets):
        net.close()
    return run


def candidates(problem: Problem) -> dict[str, tuple[str, bool]]:
    """Return the solver's settings by the name of the rule or schedule, and whether it uses a line search."""
    share = {"third": problem.max_iter // 3, "twothirds": 2 * problem.max_iter // 3, "tenth": problem.max_iter // 10}
    numbers = {**share, "decay": 1 - 2 / problem.max_iter, "slow": 2 / problem.max_iter}
    found = {}
    for kind, (settings, *rates) in RULES.items():
        line = f'type: "{kind}" lr_policy: "fixed" base_lr: {rates[problem.column]} {settings}'
        found[kind] = (line, kind in SEARCHES)
    base = f'type: "SGD" base_lr: {RULES["SGD"][1 + problem.column]}'
    for name, settings in POLICIES.items():
        found[name] = (f'{base} momentum: 0.9 lr_policy: "{name}" {settings.format(**numbers)}', False)
    for name, settings in OTHERS.items():
        found[name] = (f"{base} momentum: 0.9 {settings.format(**numbers)}", False)
    return found


def table(runs: dict[str, dict[str, Run]], given: list[Problem]) -> str:
    """Return the table in Markdown: a row per rule or schedule, a column per problem."""
    heads = [f"{problem.name}, loss {problem.goal:g}" for problem in given]
    lines = [f"| | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(given)}"]
    for name, row in runs.items():
        lines.append(f"| {name} | {' | '.join(row[problem.name].cell() for problem in given)} |")
    return "\n".join(lines)


def plot(runs: dict[str, dict[str, Run]], given: list[Problem], path: Path) -> None:
    """Draw the losses of every run: rules in the upper row, schedules in the lower."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(given), figsize=(6 * len(given), 9), squeeze=False)
    for column, problem in enumerate(given):
        for row, part in enumerate((RULES, {**POLICIES, **OTHERS})):
            axis = axes[row][column]
            for index, name in enumerate(name for name in part if name in runs):
                losses = np.array(runs[name][problem.name].losses)
                style = ("-", "--", ":")[index // 10 % 3]
                axis.plot(np.arange(1, len(losses) + 1), losses, style, label=name, linewidth=1)
            axis.axhline(problem.goal, color="grey", linewidth=0.5)
            axis.set(xscale="log", yscale="log", xlabel="iteration", title=problem.name)
            axis.set_ylim(problem.goal / 2, None)
        axes[0][column].set_ylabel("loss")
    for row in range(2):
        axes[row][-1].legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def main() -> None:
    """Run everything, print the table and write it with its plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="time limit of one run")
    parser.add_argument("--only", type=words, default=[], help="names of rules and schedules, separated by commas")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    check_names(parser, "rule or schedule", options.only, [*RULES, *POLICIES, *OTHERS])
    log.start(logging.ERROR)
    torch.set_num_threads(options.threads)
    wanted = options.only
    runs: dict[str, dict[str, Run]] = {}
    with tempfile.TemporaryDirectory() as folder:
        given = problems(Path(folder))
        for problem in given:
            for name, (settings, search) in candidates(problem).items():
                if wanted and name not in wanted:
                    continue
                run = train(problem, settings, search, options.seconds)
                runs.setdefault(name, {})[problem.name] = run
                print(f"{problem.name}: {name}: {run.cell()}", flush=True)
    text_table = table(runs, given)
    RESULTS.mkdir(exist_ok=True)
    head = f"Iterations and seconds to a fixed loss, {options.threads} thread(s); (loss after n) where not reached.\n\n"
    (RESULTS / "rules.md").write_text(f"{head}{text_table}\n\n![losses](rules.png)\n")
    plot(runs, given, RESULTS / "rules.png")
    print(f"\n{text_table}")


if __name__ == "__main__":
    main()
