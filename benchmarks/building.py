"""The time to build nets and to reshape them, and the time from `caffe train` to the first iteration.

    python -m benchmarks building [-short]

The first table is in milliseconds of processor time, medians. The column "before / now" relates them to the
revision BEFORE of this repository, from which the goal counts, in processes that take turns; without git or that
revision it is empty. The second is the wall time of commands that take turns:
`python -c "import torch"`, `caffe train` of one iteration of LeNet, `caffe --help`. The difference of the first two is
our share of the start.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import caffe
from benchmarks import tasks
from benchmarks.report import keep, machine
from benchmarks.workloads import NETS, prepare
from caffe import models
from caffe.proto import caffe_pb2, text

ROOT = Path(__file__).parent.parent
BEFORE = "e2805dc~1"
"""The last revision before the work on building and reshaping began."""
BUILD = """
import statistics, sys, time, caffe
for path in sys.argv[1:]:
    times = []
    for _ in range(4):
        begun = time.process_time()
        caffe.Net(path, caffe.TEST)
        times.append(time.process_time() - begun)
    print(statistics.median(times[1:]))
"""
CAFFE = Path(sys.executable).parent / "caffe"


def tiny(layers: int) -> Any:
    """A chain of layers of four numbers each."""
    net = caffe_pb2.NetParameter(name=f"{layers} layers")
    net.layer.add(name="data", type="Input", top=["x0"]).input_param.shape.add().dim.extend([1, 4])
    for index in range(layers):
        net.layer.add(name=f"layer{index}", type="ReLU", bottom=[f"x{index}"], top=[f"x{index + 1}"])
    return net


def resnet152() -> Any:
    """ResNet-152 without fillers, as published for use with weights."""
    return unfilled(models.resnet152(batch=1, size=224, train=False))


def unfilled(net: Any) -> Any:
    """The same net without fillers, which a weight file makes useless."""
    for layer in net.layer:
        for options in ("convolution_param", "inner_product_param"):
            if layer.HasField(options):
                getattr(layer, options).ClearField("weight_filler")
    return net


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    """The median of the processor time that a call takes."""
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        work()
        times.append((time.process_time() - begun) * 1e3)
    return statistics.median(times)


def half_ssd() -> Any:
    """The SSD of `benchmarks.training` without fillers."""
    net = tasks.ssd(1, 300)
    del net.layer[-1]
    return unfilled(net)


def since(nets: dict[str, Any], rounds: int) -> dict[str, float]:
    """For each net the time to build it in the revision BEFORE over that of now; nothing if git does not have it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        git = ["git", "-C", str(ROOT), "archive", "-o", str(folder / "old.tar"), BEFORE, "src"]
        try:
            subprocess.run(git, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return {}
        shutil.unpack_archive(folder / "old.tar", folder / "old", filter="data")
        for name, param in nets.items():
            text.write(folder / f"{name}.prototxt", param)
        paths = [str(folder / f"{name}.prototxt") for name in nets]
        found: dict[str, list[list[float]]] = {"old": [], "now": []}
        for _ in range(rounds):
            for which, source in (("old", folder / "old" / "src"), ("now", ROOT / "src")):
                environment = {**os.environ, "PYTHONPATH": str(source)}
                command = [sys.executable, "-W", "ignore", "-c", BUILD, *paths]
                run = subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True, text=True)
                found[which].append([float(word) for word in run.stdout.split()])
        old, now = ([statistics.median(times) for times in zip(*found[which], strict=True)] for which in found)
        return {name: a / b for name, a, b in zip(nets, old, now, strict=True)}


def built(repeats: int) -> dict[str, float]:
    """Print a table of building and reshaping. Returns the figures for the goals."""
    print("| net | layers | building | for each layer | before / now | reshape, new size | reshape, size seen before |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    chains = {f"chain of {n}": tiny(n) for n in (125, 250, 500, 1000, 2000)}
    nets = {"ResNet-152": resnet152(), "SSD-300": half_ssd(), **chains}
    before = since({name: nets[name] for name in ("ResNet-152", "SSD-300", "chain of 1000")}, min(repeats, 5))
    figures = {f"{name}, before / now": times for name, times in before.items()}
    each: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, param in nets.items():
            path = Path(folder) / "net.prototxt"
            text.write(path, param)
            took = milliseconds(lambda path=path: caffe.Net(path, caffe.TEST), repeats)  # type: ignore[misc]
            count = len(param.layer)
            new, seen = reshaped(caffe.Net(path, caffe.TEST))
            each[name] = took / count
            figures[f"{name}, seen / new"] = seen / new
            print(
                f"| {name} | {count} | {took:.1f} ms | {took / count * 1e3:.0f} us | "
                f"{f'{before[name]:.2f}' if name in before else ''} | {new:.2f} ms | {seen:.2f} ms |"
            )
    return {**figures, "a layer of 2000 / of 125": each["chain of 2000"] / each["chain of 125"]}


def reshaped(net: caffe.Net) -> tuple[float, float]:
    """Milliseconds for sizes that the net has not had, and for two that it has had."""
    blob = net.blobs[net.inputs[0]]
    image = len(blob.shape) == 4

    def to(size: int) -> None:
        blob.reshape(*((1, 3, 32 * size, 32 * size) if image else (1, size)))
        net.reshape()

    new = statistics.median(milliseconds(lambda size=size: to(size), 1) for size in range(8, 13))  # type: ignore[misc]
    return new, statistics.median(milliseconds(lambda size=size: to(size), 1) for size in (8, 9) * 3)  # type: ignore[misc]


def started(repeats: int) -> dict[str, float]:
    """Print the wall time of commands that take turns. Returns the figures for the goals."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(NETS["lenet"], folder, train=True, solver="max_iter: 1")
        commands = {
            "python -c 'import torch'": [sys.executable, "-c", "import torch"],
            "caffe train, one iteration of LeNet": [str(CAFFE), "train", "-solver", str(folder / "solver.prototxt")],
            "caffe --help": [str(CAFFE), "--help"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        # with this variable set, each process would compile all modules again
        compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        for _ in range(repeats):
            for name, command in commands.items():
                begun = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True, env=compiled)
                times[name].append(time.perf_counter() - begun)
    print("| command | seconds |\n| --- | ---: |")
    medians = [statistics.median(took) for took in times.values()]
    for name, took in zip(times, medians, strict=True):
        print(f"| `{name}` | {took:.2f} |")
    return {"first iteration, s": medians[1], "our share, s": medians[1] - medians[0], "help, s": medians[2]}


def main(argv: list[str]) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks building", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("-short", action="store_true", help="fewer repetitions; writes nothing")
    short = parser.parse_args(argv).short
    repeats = 2 if short else 7
    print(machine(2))
    print()
    figures = built(repeats)
    print()
    figures |= started(repeats)
    if not short:
        keep("building", figures)


if __name__ == "__main__":
    main(sys.argv[1:])
