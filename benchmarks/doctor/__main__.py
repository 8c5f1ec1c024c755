"""Runs the doctor on planted faults and healthy runs, and counts its findings.

python -m benchmarks.doctor                    all of them (an hour on one core)
python -m benchmarks.doctor -part 1/2          every second one
python -m benchmarks.doctor -only small,mlp    those whose names contain one of these words
python -m benchmarks.doctor -fix               trains the output of `-fix`, and compares it with the healthy run
python -m benchmarks.doctor report             the figures of all results in the folder
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.doctor import data, examples, judge
from benchmarks.doctor.healthy import healthy
from benchmarks.doctor.others import others
from caffe.exercise.nets import Run, solver_text
from caffe.exercise.planted import planted


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", default="run", choices=["run", "report"])
    parser.add_argument("-folder", type=Path, default=Path(os.environ.get("TMPDIR", "/tmp")) / "caffe_doctor")
    parser.add_argument("-part", default="1/1")
    parser.add_argument("-only", default="")
    parser.add_argument("-budget", type=float, default=12)
    parser.add_argument("-fix", action="store_true")
    parser.add_argument("-kind", default="both", choices=["both", "planted", "healthy"])
    parser.add_argument("-new", action="store_true", help="skip cases that have a result already")
    arguments = parser.parse_args()
    if arguments.task == "run":
        _run_all(arguments)
    return judge.report(arguments.folder / "results")


def _chosen(arguments: argparse.Namespace) -> list[Run]:
    runs = [*planted(), *healthy(), *others(), *(Run(f"ok {name}", "", {}) for name in examples.SOLVERS)]
    if arguments.kind != "both":
        runs = [run for run in runs if bool(run.codes) == (arguments.kind == "planted")]
    words = [word for word in arguments.only.split(",") if word]
    number, count = (int(each) for each in arguments.part.split("/"))
    runs = _numbered(runs)
    return [run for run in runs if not words or any(word in run.name for word in words)][number - 1 :: count]


def _numbered(runs: list[Run]) -> list[Run]:
    """Make names unique: the second case of a name gets a 2."""
    seen: dict[str, int] = {}
    for run in runs:
        seen[run.name] = seen.get(run.name, 0) + 1
        if seen[run.name] > 1:
            object.__setattr__(run, "name", f"{run.name} {seen[run.name]}")
    return runs


def _run_all(arguments: argparse.Namespace) -> None:
    folder = arguments.folder
    data.make(folder / "data")
    (folder / "results").mkdir(exist_ok=True)
    for run in _chosen(arguments):
        path = folder / "results" / f"{run.name.replace('/', '_')}.json"
        if arguments.new and path.exists():
            continue
        result = _examined(run, folder, arguments)
        path.write_text(json.dumps(result, indent=1))
        print(judge.line(result), flush=True)


def _examined(run: Run, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    from caffe.doctor import diagnose
    from caffe.errors import CaffeError

    here = folder / f"run{os.getpid()}"
    solver = _written(run, here, folder / "data")
    weights = str(judge.weights(run.weights, folder)) if run.weights else ""
    begin = time.monotonic()
    try:
        report = diagnose(solver, weights, arguments.budget)
    except CaffeError as error:
        return {"name": run.name, "codes": run.codes, "error": str(error), "alarms": [], "notes": [], "seconds": 0.0}
    result: dict[str, Any] = {"name": run.name, "codes": run.codes, "seconds": time.monotonic() - begin}
    result["alarms"] = [finding.as_dict() for finding in report.alarms]
    result["notes"] = [finding.as_dict() for finding in report.findings if finding not in report.alarms]
    result["checks"] = [line.as_dict() for line in report.lines]
    if arguments.fix and run.codes:
        (here / "fixed").mkdir(exist_ok=True)
        report.fix(here / "fixed")
        result["fixed"] = judge.trained(here / "fixed" / "solver.prototxt", here / "fixed" / "net.prototxt")
        result["healthy"] = judge.healthy_value(run.name, folder)
    return result


def _written(run: Run, here: Path, data_folder: Path) -> Path:
    here.mkdir(exist_ok=True)
    if not run.net:  # an example
        examples.make(data_folder)
        os.chdir(data_folder)
        return Path("examples") / f"{run.name.removeprefix('ok ')}.prototxt"
    (here / "net.prototxt").write_text(run.net.replace("@", str(data_folder)))
    (here / "solver.prototxt").write_text(solver_text(run, here / "net.prototxt", here))
    return here / "solver.prototxt"


if __name__ == "__main__":
    raise SystemExit(main())
