"""Peak memory of a training step of ResNet-50, compared with PyTorch and real Caffe.

    python -m benchmarks memory [-nets resnet50]

Reports the peak resident memory of the process (VmHWM) after four steps, and its growth since the imports, which alone
use some hundred megabytes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import real, report, training
from benchmarks.rounds import OURS, Engine, EngineError, Kind, chosen, options
from benchmarks.workloads import NETS, prepare

LEFT_OUT = ("Cafetière compiled", "PyTorch compiled", "matrix product")
"""Excluded, because the compilers' own memory would be counted too."""
ENGINES = [
    *(kind for kind in training.ENGINES if kind.name not in LEFT_OUT),
    Kind(f"{OURS} recompute", "ours", "train", {"recompute": True}),
]


def main(argv: list[str]) -> None:
    """Measure, print and write the results."""
    given = options("memory", ["resnet50"], argv)
    found: dict[str, dict[str, Any]] = {}
    for net in given.nets:
        whole: dict[str, Any] = found.setdefault(f"{net}: process", {})
        grown: dict[str, Any] = found.setdefault(f"{net}: less imports", {})
        with tempfile.TemporaryDirectory() as temporary:
            prepare(NETS[net], Path(temporary), train=True)
            for kind in chosen(ENGINES, given):
                try:
                    engine = Engine(kind, Path(temporary), given.cores)
                except (EngineError, real.Missing) as error:
                    whole[kind.name] = grown[kind.name] = {"error": str(error)}
                    continue
                engine.turn(0)
                engine.turn(0)
                kilobytes = engine.ask("memory")
                engine.close()
                whole[kind.name] = {"MB": kilobytes["peak"] / 1024}
                grown[kind.name] = {"MB": (kilobytes["peak"] - kilobytes["before"]) / 1024}
        report.progress(net, whole)
    report.save("memory", {name: {"engines": engines} for name, engines in found.items()}, given)


if __name__ == "__main__":
    main(sys.argv[1:])
