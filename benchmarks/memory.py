"""Peak memory of a training step, compared with PyTorch, and the time that `recompute` costs.

    python -m benchmarks memory [-nets resnet50] [-engines real]

Reports the peak resident memory of the process (VmHWM) after four steps, and its growth since the imports, which alone
use some hundred megabytes. Real Caffe and PyTorch with its tuned settings are measured if `-engines` names them.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import real, report, training
from benchmarks.rounds import OURS, Engine, EngineError, Found, Kind, chosen, options
from benchmarks.workloads import TRAINED, prepare

LEFT_OUT = ("Cafetière compiled", "PyTorch compiled", "matrix product")
"""Excluded, because the compilers' own memory would be counted too."""
RECOMPUTE = Kind(f"{OURS} recompute", "ours", "train", {"recompute": True})
EXTRA = ("PyTorch tuned", "real Caffe")
ENGINES = [
    *(replace(kind, extra=kind.name in EXTRA) for kind in training.ENGINES if kind.name not in LEFT_OUT),
    RECOMPUTE,
]
TIMED = "resnet50"


def grown(kind: Kind, folder: Path, threads: int) -> tuple[Found, Found]:
    """The peak of a process that makes four steps, and the peak less that of its imports."""
    try:
        engine = Engine(kind, folder, threads)
    except (EngineError, real.Missing) as error:
        return {"error": str(error)}, {"error": str(error)}
    engine.turn(0)
    engine.turn(0)
    kilobytes = engine.ask("memory")
    engine.close()
    peak, before = kilobytes["peak"] / 1024, kilobytes["before"] / 1024
    return {"MB": peak}, {"MB": peak - before}


def slower(folder: Path, threads: int, rounds: int) -> float:
    """The time of a step with `recompute` over one without it; both take turns."""
    engines = [Engine(kind, folder, threads) for kind in (ENGINES[0], RECOMPUTE)]
    for engine in engines:
        engine.turn(0)
        engine.times.clear()
    for _ in range(rounds):
        for engine in engines:
            engine.turn(1.0)
    for engine in engines:
        engine.close()
    without, with_it = (statistics.median(engine.times) for engine in engines)
    return with_it / without


def main(argv: list[str]) -> None:
    """Measure, print and write the results."""
    given = options("memory", TRAINED, argv)
    found: dict[str, dict[str, Any]] = {}
    ratios = {}
    for net in given.nets:
        whole: dict[str, Any] = found.setdefault(f"{net}: process", {})
        less: dict[str, Any] = found.setdefault(f"{net}: less imports", {})
        with tempfile.TemporaryDirectory() as temporary:
            prepare(TRAINED[net], Path(temporary), train=True)
            for kind in chosen(ENGINES, given):
                whole[kind.name], less[kind.name] = grown(kind, Path(temporary), given.cores)
            if net == TIMED and not given.engines:
                ratios[net] = slower(Path(temporary), given.cores, given.rounds)
                print(f"time of a step with recompute / without it, {net}: {ratios[net]:.2f}")
        report.progress(net, whole)
    report.save("memory", {name: {"engines": engines} for name, engines in found.items()}, given)
    if given.whole:
        report.keep("recompute", ratios)


if __name__ == "__main__":
    main(sys.argv[1:])
