"""A training step of five classic nets: ours beside real Caffe and PyTorch, in turn, on the same random data.

    python -m benchmarks training [-nets lenet,alexnet] [-threads 1,2] [-rounds 7] [-compile]

Each engine is a process of its own, and they step in turn; a figure is the median of its rounds. Real Caffe takes part
where the environment variable CAFETIERE_REAL_CAFFE names a Python that has it (pycaffe 1.0). The table is printed, and
with all nets written to benchmarks/results/training.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from caffe.proto import caffe_pb2, text, upgrade

ROOT = Path(__file__).parent.parent
NETS = {
    "lenet": ("examples/mnist/lenet_train_test.prototxt", 64, 1, 28),
    "cifar_quick": ("examples/cifar10/cifar10_quick_train_test.prototxt", 100, 3, 32),
    "alexnet": ("models/bvlc_alexnet/train_val.prototxt", 10, 3, 227),
    "googlenet": ("models/bvlc_googlenet/train_val.prototxt", 10, 3, 224),
    "resnet50": ("", 8, 3, 224),
}
SOLVER = """base_lr: 0.0001 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.0005 display: 0 snapshot_after_train: false
solver_mode: CPU random_seed: 1 """
REAL_CAFFE = """
import os, sys, time
os.environ["GLOG_minloglevel"] = "2"
import numpy as np, caffe
caffe.set_mode_cpu()
solver = caffe.SGDSolver(sys.argv[1])
rng = np.random.RandomState(0)
solver.net.blobs["data"].data[...] = rng.standard_normal(solver.net.blobs["data"].data.shape)
if "label" in solver.net.blobs:
    solver.net.blobs["label"].data[...] = rng.randint(0, 10, solver.net.blobs["label"].data.shape)
for line in sys.stdin:
    for _ in range(int(line)):
        start = time.perf_counter()
        solver.step(1)
    print("ms", (time.perf_counter() - start) * 1e3, flush=True)
"""


def net_text(name: str) -> str:
    """The net with its data layers replaced by one Input layer."""
    path, batch, channels, size = NETS[name]
    if not path:
        from caffe import models

        return text.dumps(models.resnet50(batch=batch, train=True))
    given = upgrade.read_net(ROOT / path)
    net = caffe_pb2.NetParameter(name=given.name)
    inputs = net.layer.add(name="data", type="Input", top=["data", "label"])
    inputs.input_param.shape.add().dim.extend([batch, channels, size, size])
    inputs.input_param.shape.add().dim.append(batch)
    net.layer.extend(layer for layer in given.layer if layer.type not in ("Data", "Accuracy"))
    return text.dumps(net)


def ours(folder: Path) -> Any:
    """A step of our solver."""
    import numpy as np

    import caffe

    solver = caffe.get_solver(folder / "solver.prototxt")
    rng = np.random.default_rng(0)
    solver.net.blobs["data"].data[...] = rng.standard_normal(solver.net.blobs["data"].shape)
    solver.net.blobs["label"].data[...] = rng.integers(0, 10, solver.net.blobs["label"].shape)
    return lambda: solver.step(1)


def plain(folder: Path, tuned: bool = False, compiled: bool = False) -> Any:
    """A step of the same net in PyTorch by hand; tuned: channels_last and fused SGD."""
    import torch

    import caffe
    from benchmarks.plain_torch import PlainNet

    net = caffe.Net(folder / "net.prototxt", caffe.TRAIN)
    channels = {name: blob.shape[1] for name, blob in net.blobs.items() if len(blob.shape) > 1}
    data, label = torch.randn(net.blobs["data"].shape), torch.randint(0, 10, net.blobs["label"].shape)
    module = PlainNet(text.read(folder / "net.prototxt", caffe_pb2.NetParameter()), channels)
    module(data, label)  # lazy modules take their sizes
    if tuned:
        module, data = module.to(memory_format=torch.channels_last), data.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(module.parameters(), 0.0001, 0.9, weight_decay=0.0005, fused=tuned or None)
    run = torch.compile(module) if compiled else module

    def step() -> float:
        optimizer.zero_grad()
        loss = run(data, label)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


ENGINES = {
    "Cafetière": ours,
    "PyTorch eager": plain,
    "PyTorch tuned": lambda folder: plain(folder, tuned=True),
    "PyTorch compiled": lambda folder: plain(folder, tuned=True, compiled=True),
}


def work(engine: str, folder: str, threads: int) -> None:
    """The process of one engine: for each number read, take that many steps and tell how long the last took."""
    import time

    import torch

    torch.set_num_threads(threads)
    step = ENGINES[engine](Path(folder))
    for line in sys.stdin:
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
        print("ms", (time.perf_counter() - start) * 1e3, flush=True)


class Engine:
    """A running engine process."""

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        self.name, self.threads, self.times = name, threads, []
        command = [sys.executable, "-m", "benchmarks.training", "--work", name, str(folder), str(threads)]
        if name == "real Caffe":
            command = [os.environ["CAFETIERE_REAL_CAFFE"], "-c", REAL_CAFFE, str(folder / "solver.prototxt")]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        if name == "real Caffe":
            environment.pop("PYTHONPATH", None)  # both packages are called caffe
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
        )

    def steps(self, count: int) -> float:
        """Take `count` steps; milliseconds of the last."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(count, file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith("ms "):
                return float(line.split()[1])
        raise SystemExit(f"{self.name} stopped without an answer")


def measure(net: str, names: list[str], threads: list[int], rounds: int) -> dict[str, float]:
    """Milliseconds of a step by engine: the median of the rounds, of the better number of threads."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "net.prototxt").write_text(net_text(net))
        (folder / "solver.prototxt").write_text(f'net: "{folder}/net.prototxt" {SOLVER}')
        engines = [Engine(name, folder, count) for name in names for count in threads]
        for engine in engines:
            engine.steps(3)
        for _ in range(rounds):
            for engine in engines:
                engine.times.append(engine.steps(2))
        best: dict[str, float] = {}
        for engine in engines:
            median = statistics.median(engine.times)
            best[engine.name] = min(median, best.get(engine.name, median))
            engine.process.stdin.close()  # type: ignore[union-attr]
            engine.process.wait()
        return best


def table(results: dict[str, dict[str, float]]) -> str:
    """A Markdown table: milliseconds, and how many times as long as ours each peer takes."""
    names = list(next(iter(results.values())))
    lines = ["| training step, ms | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for net, times in results.items():
        cells = [f"{ms:.1f} ({ms / times[names[0]]:.2f}x)" for ms in times.values()]
        cells[0] = f"{times[names[0]]:.1f}"
        lines.append(f"| {net}, batch {NETS[net][1]} | " + " | ".join(cells) + " |")
    ratios = [statistics.geometric_mean(t[name] / t[names[0]] for t in results.values()) for name in names[1:]]
    lines.append("| geometric mean | 1 | " + " | ".join(f"{ratio:.2f}x" for ratio in ratios) + " |")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks training")
    parser.add_argument("-nets", default=",".join(NETS))
    parser.add_argument("-threads", default=str(os.cpu_count() or 1))
    parser.add_argument("-rounds", type=int, default=7)
    parser.add_argument("-compile", action="store_true", help="with PyTorch compiled, which takes minutes")
    options = parser.parse_args(argv)
    names = [name for name in ENGINES if options.compile or name != "PyTorch compiled"]
    if os.environ.get("CAFETIERE_REAL_CAFFE"):
        names.append("real Caffe")
    results = {}
    for net in options.nets.split(","):
        results[net] = measure(net, names, [int(count) for count in options.threads.split(",")], options.rounds)
        print(net, {name: round(ms, 1) for name, ms in results[net].items()}, flush=True)
    print(table(results))
    if set(results) == set(NETS):
        target = Path(__file__).parent / "results" / "training.md"
        target.parent.mkdir(exist_ok=True)
        target.write_text(f"# Training step\n\nMedian of {options.rounds} rounds in turn.\n\n{table(results)}\n")


if __name__ == "__main__":
    if sys.argv[1] == "--work":
        work(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main(sys.argv[1:])
