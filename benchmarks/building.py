"""The time to build nets and to reshape them, and the time from `caffe train` to the first iteration.

    python -m benchmarks building [-short]

The first table is in milliseconds of processor time, medians. The second is the wall time of commands that take turns:
`python -c "import torch"`, `caffe train` of one iteration of LeNet, `caffe --help`. The difference of the first two is
our part of the start.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import caffe
from benchmarks.report import machine
from benchmarks.workloads import NETS, prepare
from caffe import models
from caffe.proto import caffe_pb2, text

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
    net = models.resnet152(batch=1, size=224, train=False)
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


def built(repeats: int) -> None:
    """Print a table of building and reshaping."""
    print("| net | layers | building | for each layer | reshape, new size | reshape, size seen before |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    nets = {"ResNet-152": resnet152(), **{f"chain of {n}": tiny(n) for n in (125, 250, 500, 1000, 2000)}}
    with tempfile.TemporaryDirectory() as folder:
        for name, param in nets.items():
            path = Path(folder) / "net.prototxt"
            text.write(path, param)
            took = milliseconds(lambda path=path: caffe.Net(path, caffe.TEST), repeats)  # type: ignore[misc]
            count = len(param.layer)
            new, seen = reshaped(caffe.Net(path, caffe.TEST))
            print(f"| {name} | {count} | {took:.1f} ms | {took / count * 1e3:.0f} us | {new:.1f} ms | {seen:.1f} ms |")


def reshaped(net: caffe.Net) -> tuple[float, float]:
    """Milliseconds for sizes that the net has not had, and for two that it has had."""
    blob = net.blobs[net.inputs[0]]
    image = len(blob.shape) == 4

    def to(size: int) -> None:
        blob.reshape(*((1, 3, 32 * size, 32 * size) if image else (1, size)))
        net.reshape()

    new = statistics.median(milliseconds(lambda size=size: to(size), 1) for size in range(8, 13))  # type: ignore[misc]
    return new, statistics.median(milliseconds(lambda size=size: to(size), 1) for size in (8, 9) * 3)  # type: ignore[misc]


def started(repeats: int) -> None:
    """Print the wall time of commands that take turns."""
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
    for name, took in times.items():
        print(f"| `{name}` | {statistics.median(took):.2f} |")


def main(argv: list[str]) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks building", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("-short", action="store_true", help="fewer repetitions; writes nothing")
    short = parser.parse_args(argv).short
    repeats = 2 if short else 7
    print(machine(2))
    print()
    built(repeats)
    print()
    started(repeats)


if __name__ == "__main__":
    main(sys.argv[1:])
