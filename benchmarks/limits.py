"""The limits of this machine: the rates to which `benchmarks/limits.md` relates the other figures.

python -m benchmarks limits [-short]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.report import RESULTS, machine
from caffe import torch_internals

SIDE = 2048
COPIED = 1 << 26
"""Bytes of the copied array, more than any cache."""


def seconds(work: Callable[[], object], calls: int, repeats: int) -> float:
    """The median time of one call."""
    work()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        for _ in range(calls):
            work()
        times.append((time.perf_counter() - begun) / calls)
    return statistics.median(times)


def rates(repeats: int) -> Iterator[tuple[str, str, str]]:
    """What is measured, with one thread and with two, and its unit."""
    big, source = torch.randn(SIDE, SIDE), torch.ones(COPIED // 4)
    target = torch.empty_like(source)

    def product() -> float:
        if torch_internals.linear_pointwise is None:
            return 2 * SIDE**3 / seconds(lambda: F.linear(big, big), 1, repeats) / 1e9
        run = torch_internals.linear_pointwise
        return 2 * SIDE**3 / seconds(lambda: run(big, big, None, "none", [], ""), 1, repeats) / 1e9

    def copy() -> float:
        return 2 * COPIED / seconds(lambda: target.copy_(source), 1, repeats) / 1e9

    for name, unit, measure in (
        (f"product of {SIDE} x {SIDE} matrices, float32", "GFLOP/s", product),
        ("copy of 64 MB, bytes read and written", "GB/s", copy),
    ):
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(f"{measure():,.1f}")
        yield name, " / ".join(found), unit
    torch.set_num_threads(1)
    yield from overheads(repeats)
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8), (256, 256))
    jpeg = cv2.imencode(".jpg", smooth)[1]
    yield "JPEG of 256 x 256 decoded by OpenCV", f"{1 / seconds(lambda: cv2.imdecode(jpeg, 1), 50, repeats):,.0f}", "/s"
    command = [sys.executable, "-c", "import torch"]
    took = seconds(lambda: subprocess.run(command, check=True), 1, min(repeats, 5))
    yield "a process that imports torch", f"{took:.2f}", "s"


def overheads(repeats: int) -> Iterator[tuple[str, str, str]]:
    """Microseconds of the smallest calls, with one thread."""
    one, leaf = torch.ones(1), torch.ones(1, requires_grad=True)
    image, filters, bias = torch.ones(1, 3, 12, 12), torch.ones(10, 3, 3, 3), torch.ones(10)
    top, diff = leaf.sigmoid(), torch.ones(1)
    calls: dict[str, Callable[[], object]] = {
        "torch.sigmoid of one number": lambda: torch.sigmoid(one),
        "its gradient by autograd": lambda: torch.autograd.grad(top, leaf, diff, retain_graph=True),
        "its gradient by autograd's engine": lambda: torch_internals.gradients((top,), (diff,), (leaf,)),
        "F.conv2d of 3 x 12 x 12 with ten filters": lambda: F.conv2d(image, filters, bias),
    }
    for name, call in calls.items():
        with torch.no_grad():
            yield name, f"{seconds(call, 200, repeats) * 1e6:.1f}", "us"


def main(argv: list[str]) -> None:
    """Measure and print; without `-short`, write benchmarks/results/machine.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks limits", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("-short", action="store_true", help="fewer repetitions; writes nothing")
    short = parser.parse_args(argv).short
    lines = ["# What this machine allows", "", machine(2), "", "| | one thread / two | |", "| --- | ---: | --- |"]
    lines += [f"| {name} | {found} | {unit} |" for name, found, unit in rates(3 if short else 15)]
    page = "\n".join([*lines, "", "What each limit means: [limits.md](../limits.md)", ""])
    print(page)
    if not short:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "machine.md").write_text(page)


if __name__ == "__main__":
    main(sys.argv[1:])
