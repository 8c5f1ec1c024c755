"""The update of AlexNet's 61 million weights: our rules, torch.optim's, and the limit of the memory bandwidth.

    python -m benchmarks.update [--rounds 9] [--threads 2] [--types SGD,Adam,AdamW]

The candidates take turns; medians are reported. The limit is the time to move the bytes of an update at the speed of
copying a tensor of the size of all weights, where a copy counts as one read and one write. Our rules store the amounts
subtracted in the diffs, as Caffe does, which is one more write than in torch.optim. The table is printed, and written
to benchmarks/results/update.md.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import caffe
from benchmarks.arguments import check_names, words
from caffe import log
from caffe.proto import caffe_pb2
from caffe.solver.rules import Update, rule_class, rule_types

MODEL = Path(__file__).parent.parent / "models" / "bvlc_alexnet" / "deploy.prototxt"
RESULTS = Path(__file__).parent / "results"
RATE, DECAY = 1e-4, 5e-4
SETTINGS = {"SGD": {"momentum": 0.9}, "Nesterov": {"momentum": 0.9}}
TORCH: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": lambda params, **how: torch.optim.SGD(params, RATE, momentum=0.9, weight_decay=DECAY, **how),
    "Nesterov": lambda params, **how: torch.optim.SGD(
        params, RATE, momentum=0.9, nesterov=True, weight_decay=DECAY, **how
    ),
    "Adam": lambda params, **how: torch.optim.Adam(params, RATE, weight_decay=DECAY, **how),
    "AdamW": lambda params, **how: torch.optim.AdamW(params, RATE, weight_decay=DECAY, **how),
}


def shapes() -> list[tuple[int, ...]]:
    """Return the shapes of AlexNet's blobs."""
    net = caffe.Net(MODEL, caffe.TEST, device="cpu")
    return [tuple(entry.tensor.shape) for entry in net.learnable]


def ours(kind: str, sizes: list[tuple[int, ...]]) -> tuple[Callable[[], None], int]:
    """Return an update by our rule, and the number of values per weight that it moves."""
    rule = rule_class(kind)(
        caffe_pb2.SolverParameter(type=kind, **SETTINGS.get(kind, {"momentum": 0.9, "momentum2": 0.999}))
    )
    updates = [
        Update(torch.randn(s), torch.randn(s), [torch.zeros(s) for _ in range(rule.history)], RATE, DECAY)
        for s in sizes
    ]
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        rule.apply(updates, count, 1.0)

    return step, 2 * (2 + rule.history)


def theirs(kind: str, sizes: list[tuple[int, ...]], how: str) -> tuple[Callable[[], None], int]:
    """Return an update by torch.optim, foreach or fused, and the number of values per weight that it moves."""
    params = [torch.nn.Parameter(torch.randn(s)) for s in sizes]
    for param in params:
        param.grad = torch.randn_like(param)
    optimizer = TORCH[kind](params, **{how: True})
    histories = 2 if "Adam" in kind else 1

    def step() -> None:
        optimizer.step()

    return step, 3 + 2 * histories


def copy(count: int) -> tuple[Callable[[], None], int]:
    """Return a copy of as many numbers as there are weights."""
    source, target = torch.randn(count), torch.zeros(count)

    def step() -> None:
        target.copy_(source)

    return step, 2


def measure(
    candidates: dict[str, tuple[Callable[[], None], int]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the median seconds of each candidate; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(rounds + 1):
        for name, (step, _) in candidates.items():
            start = clock()
            step()
            if round_number:  # the first round is a warm-up
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--types", type=words, default=list(TORCH), help="by default all that torch has")
    given = parser.parse_args()
    check_names(parser, "update rule", given.types, rule_types())
    torch.set_num_threads(given.threads)
    log.start(logging.WARNING)
    sizes = shapes()
    count = sum(torch.Size(s).numel() for s in sizes)
    lines = [
        f"{count:,} weights, {given.threads} thread(s), median of {given.rounds}\n",
        "| update | ms | GB moved | limit ms | time / limit |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    with torch.no_grad():
        for kind in given.types:
            lines += rows(kind, sizes, given.rounds)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "update.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def rows(kind: str, sizes: list[tuple[int, ...]], rounds: int) -> list[str]:
    """Return the table's rows for one rule, each with a copy measured in the same rounds."""
    count = sum(torch.Size(s).numel() for s in sizes)
    candidates = {"copy": copy(count), f"{kind}, ours": ours(kind, sizes)}
    if kind in TORCH:
        for how in ("foreach", "fused"):
            candidates[f"{kind}, torch.optim {how}"] = theirs(kind, sizes, how)
    seconds, lines = measure(candidates, rounds), []
    for name, (_, numbers) in candidates.items():
        limit = numbers * seconds["copy"] / 2
        figures = f"{1e3 * seconds[name]:.0f} | {4e-9 * count * numbers:.2f} | {1e3 * limit:.0f}"
        lines.append(f"| {name} | {figures} | {seconds[name] / limit:.2f} |")
    return lines


if __name__ == "__main__":
    main()
