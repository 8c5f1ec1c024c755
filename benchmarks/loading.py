"""Loads AlexNet's weights, a file of 240 MB, until the net can run; compared with OpenCV and real Caffe.

    python -m benchmarks loading [-rounds 7]

A new process with all imports done builds the net for one image and reads the weights. It then runs the net once,
because some engines defer work until then. The file is in the system's page cache.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import real, report
from benchmarks.rounds import OURS, Engine, EngineError, Kind, chosen, options
from benchmarks.workloads import NETS, prepare

ENGINES = [Kind(OURS, "ours", "load"), Kind("OpenCV", "opencv", "load"), Kind("real Caffe", "real_caffe", "load")]


def main(argv: list[str]) -> None:
    """Measure, print and write the results."""
    given = options("loading", ["alexnet"], argv)
    kinds = chosen(ENGINES, given)
    read: dict[str, dict[str, Any]] = {kind.name: {"times": []} for kind in kinds}
    run: dict[str, dict[str, Any]] = {kind.name: {"times": []} for kind in kinds}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(replace(NETS["alexnet"], shape=(1, 3, 227, 227)), folder, train=False)
        for _ in range(given.rounds + 1):  # the first round loads files and libraries into memory
            for kind in kinds:
                try:
                    engine = Engine(kind, folder, given.cores)
                except (EngineError, real.Missing) as error:
                    read[kind.name]["error"] = run[kind.name]["error"] = str(error)
                    continue
                loaded = engine.ask("once")["ms"]
                read[kind.name]["times"].append(loaded)
                run[kind.name]["times"].append(loaded + engine.ask("once")["ms"])
                engine.close()
    for found in (*read.values(), *run.values()):
        found["times"] = found["times"][1:]
        if "error" not in found:
            found |= {"ms": statistics.median(found["times"]), "threads": given.cores}
    rows = {"net built, weights read": read, "and run once": run}
    for name, engines in rows.items():
        report.progress(name, engines)
    report.save("loading", {name: {"engines": engines} for name, engines in rows.items()}, given)


if __name__ == "__main__":
    main(sys.argv[1:])
