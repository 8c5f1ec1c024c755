"""The gain of each rewrite of `caffe.net.plan.rewrite`: a net with all rewrites, and with all but one.

    python -m benchmarks rewrites [-nets googlenet,resnet50] [-rounds 7] [-only relu_in_place]

Both nets are built in one process and take turns. A net is used only if the rewrite changes its list of calls. If
rewrites depend on each other, a figure includes the dependent ones. Megabytes are the peak that PyTorch allocates
within one run, beyond the amount before it; the growth of the process can be more or less, because of fragmentation.
The table is printed and, if all nets were measured, written to benchmarks/results/rewrites.md.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

import caffe
from benchmarks.report import RESULTS, machine
from benchmarks.rounds import options
from benchmarks.workloads import NETS as CLASSIC
from benchmarks.workloads import TRAINED, prepare
from caffe import log
from caffe.net.plan import rewrite
from caffe.net.plan.rewrite import Call, Rewrite

NETS = {**CLASSIC, "mobilenet_v2": TRAINED["mobilenet_v2"]}
Step = Callable[[], object]


def training_step(folder: Path) -> Step:
    """Build a net's solver and return a step as in `caffe train`."""
    solver = caffe.get_solver(folder / "solver.prototxt")
    solver.net.slim()
    solver.net.copy_from(folder / "net.caffemodel")
    solver.net.blobs["data"].data[...] = np.load(folder / "data.npy")
    solver.net.blobs["label"].data[...] = np.load(folder / "label.npy")
    assert solver.net.module is not None
    return lambda: solver.step(1)


def inference_step(folder: Path) -> Step:
    """Build a net and return a run in TEST."""
    net = caffe.Net(folder / "net.prototxt", caffe.TEST, weights=folder / "net.caffemodel")
    net.blobs["data"].data[...] = np.load(folder / "data.npy")
    net.optimize()
    return net.forward


FORMS: dict[str, tuple[list[Rewrite], Callable[[Path], Step]]] = {
    "training": (rewrite.REWRITES, training_step),
    "inference": (rewrite.INFERENCE, inference_step),
}
"""For each way to run a net: the list of its rewrites, and the function that builds a step."""


@contextlib.contextmanager
def replaced(changes: list[Rewrite], others: Sequence[Rewrite]) -> Iterator[None]:
    """Replace the content of the list during the block."""
    kept = list(changes)
    changes[:] = others
    try:
        yield
    finally:
        changes[:] = kept


def applied(changes: list[Rewrite], build: Callable[[], object]) -> list[Rewrite]:
    """Return the rewrites that change anything while `build` builds a net."""
    found: list[Rewrite] = []

    def watched(change: Rewrite) -> Rewrite:
        def run(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
            made = change(calls, wanted)
            if list(made) != list(calls) and change not in found:
                found.append(change)
            return made

        return run

    with replaced(changes, [watched(change) for change in changes]):
        build()
    return found


def compare(first: Step, second: Step, rounds: int) -> tuple[float, float]:
    """Return the median milliseconds of both, which take turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 2):
        for step, took in zip((first, second), times, strict=True):
            begun = time.perf_counter()
            step()
            if number >= 2:
                took.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(times[0]), statistics.median(times[1])


def peak(step: Step) -> float:
    """Return the peak megabytes that PyTorch allocates within a run, beyond the amount before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    results = profiler.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in results if event.name() == "[memory]")
    return max(accumulate(size for _, size in changes)) / 2**20


def rows(net: str, form: str, given: argparse.Namespace) -> Iterator[str]:
    """Return the table's lines for one net run in one way."""
    changes, make = FORMS[form]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(NETS[net], folder, train=form == "training")
        for change in applied(changes, lambda: make(folder)):
            if given.only and change.__name__ not in given.only:
                continue
            with_it = make(folder)
            with replaced(changes, [other for other in changes if other is not change]):
                without = make(folder)
            quick, slow = compare(with_it, without, given.rounds)
            line = f"| {change.__name__} | {form} | {net} | {quick:.1f} | {slow:.1f} | {slow / quick:.3f} |"
            yield f"{line} {peak(with_it):.1f} | {peak(without):.1f} |"


def main(argv: list[str]) -> None:
    """Measure, print, and write the table if all nets were measured."""
    given = options("rewrites", NETS, argv, more="only")
    names = sorted({change.__name__ for changes, _ in FORMS.values() for change in changes})
    for name in given.only:
        if name not in names:
            raise SystemExit(f"benchmarks: no rewrite {name}; the rewrites are: {', '.join(names)}")
    log.start(logging.ERROR)
    torch.set_num_threads(given.cores)
    lines = [
        "| rewrite | of | net | with, ms | without, ms | without / with | with, MB | without, MB |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    print("\n".join(lines))
    for form in FORMS:
        for net in given.nets:
            for line in rows(net, form, given):
                print(line, flush=True)
                lines.append(line)
    if given.whole and not given.only:
        head = ["# What each rewrite gains", "", machine(given.cores), ""]
        (RESULTS / "rewrites.md").write_text("\n".join([*head, *lines[:2], *sorted(lines[2:])]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
