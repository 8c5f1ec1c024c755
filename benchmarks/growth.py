"""How the time of a training step grows with the layers, the batch and the image size, with one and two threads.

    python -m benchmarks growth [-short]

Each line of the picture is one net. The axes are logarithmic, so the slope of a line is the exponent of the growth: 1
means linear in the number of layers or images, and 2 is expected for the side of the image.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

import caffe
from benchmarks.report import RESULTS, machine
from caffe.proto import caffe_pb2, text

CONVOLUTION = (
    'layer {{ name: "conv{i}" type: "Convolution" bottom: "{below}" top: "conv{i}" convolution_param {{ num_output: 16 '
    'kernel_size: 3 pad: 1 weight_filler {{ type: "msra" }} }} }} '
    'layer {{ name: "relu{i}" type: "ReLU" bottom: "conv{i}" top: "conv{i}" }}\n'
)
SERIES: dict[str, tuple[str, list[int], Callable[[int], tuple[int, int, int]]]] = {
    "layers": ("convolutions (batch 8, 32 x 32)", [4, 8, 16, 32, 64], lambda n: (n, 8, 32)),
    "batch": ("images in a batch (8 convolutions, 32 x 32)", [1, 2, 4, 8, 16, 32, 64], lambda n: (8, n, 32)),
    "size": ("side of the image (8 convolutions, batch 2)", [16, 32, 64, 128, 256], lambda n: (8, 2, n)),
}


def solver(layers: int, batch: int, size: int) -> Any:
    """A solver for a chain of convolutions with 16 channels."""
    made = f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: {batch} dim: 16 dim: {size} '
    made += f"dim: {size} }} }} }}\n"
    below = "data"
    for index in range(layers):
        made, below = made + CONVOLUTION.format(i=index, below=below), f"conv{index}"
    made += (
        f'layer {{ name: "loss" type: "Reduction" bottom: "{below}" top: "loss" loss_weight: 1 '
        "reduction_param { operation: MEAN } }"
    )
    param = caffe_pb2.SolverParameter(base_lr=1e-4, lr_policy="fixed", momentum=0.9, random_seed=1)
    text.parse(made, param.net_param)
    found = caffe.get_solver(param)
    found.net.slim()
    found.net.blobs["data"].data[...] = torch.rand(batch, 16, size, size)
    return found


def step(made: Any, seconds: float) -> float:
    """Milliseconds of a step, the median of a turn."""
    made.step(2)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        begun = time.perf_counter()
        made.step(1)
        times.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(times)


def measured(threads: Iterable[int], seconds: float) -> dict[str, dict[int, list[float]]]:
    """Milliseconds of each series for each number of threads."""
    found: dict[str, dict[int, list[float]]] = {name: {count: [] for count in threads} for name in SERIES}
    for name, (_, values, shape) in SERIES.items():
        for value in values:
            made = solver(*shape(value))
            for count, times in found[name].items():
                torch.set_num_threads(count)
                times.append(step(made, seconds))
    return found


def draw(found: dict[str, dict[int, list[float]]]) -> None:
    """Draw a panel for each series."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(SERIES), figsize=(13, 4))
    for panel, (name, (label, values, _)) in zip(panels, SERIES.items(), strict=True):
        for count, times in found[name].items():
            panel.loglog(values, times, "o-", label=f"{count} thread" + ("s" if count > 1 else ""))
        panel.set_xticks(values, [str(value) for value in values])
        panel.minorticks_off()
        panel.set(xlabel=label, ylabel="milliseconds a step")
        panel.grid(alpha=0.3)
        panel.legend()
    figure.suptitle("A training step of a chain of convolutions with 16 channels")
    figure.tight_layout()
    figure.savefig(RESULTS / "growth.png", dpi=90)
    pyplot.close(figure)


def markdown(found: dict[str, dict[int, list[float]]]) -> str:
    """A table for each series."""
    lines = ["# How the time of a training step grows, milliseconds", "", machine(2), ""]
    for name, (label, values, _) in SERIES.items():
        lines += [f"| {label} | " + " | ".join(map(str, values)) + " |", "| --- |" + " ---: |" * len(values)]
        for count, times in found[name].items():
            lines.append(f"| {count} thread{'s' * (count > 1)} | " + " | ".join(f"{ms:.2f}" for ms in times) + " |")
        lines.append("")
    return "\n".join([*lines, "![How the time of a training step grows](growth.png)", ""])


def main(argv: list[str]) -> None:
    """Measure and print; without `-short`, write the table and the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks growth", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("-short", action="store_true", help="fewer repetitions; writes nothing")
    short = parser.parse_args(argv).short
    found = measured((1, 2), 0.05 if short else 1.0)
    page = markdown(found)
    print(page)
    if not short:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "growth.md").write_text(page)
        draw(found)


if __name__ == "__main__":
    main(sys.argv[1:])
