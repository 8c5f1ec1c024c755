"""Pretrained weights, training of the fixed runs, and the figures of all results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["line", "report", "trained", "weights"]

_STEPS = 400


def weights(name: str, folder: Path) -> Path:
    """Return the weights of a healthy net after some training."""
    import caffe

    path = folder / "data" / f"{name}.caffemodel"
    if not path.exists():
        solver = caffe.get_solver(str(_healthy(name, folder)[0]))
        solver.step(200)
        solver.net.save(str(path))
    return path


def _healthy(name: str, folder: Path) -> tuple[Path, Path]:
    """Write solver and net of a healthy run; returns their paths."""
    from benchmarks.doctor.healthy import BASES
    from caffe.exercise.nets import Run, solver_text
    from caffe.exercise.planted import GOOD

    solver_path, net_path = folder / "data" / f"{name}_solver.prototxt", folder / "data" / f"{name}.prototxt"
    net_path.write_text(BASES[name]().replace("@", str(folder / "data")))
    solver_path.write_text(solver_text(Run(name, "", GOOD[name]), net_path, folder))
    return solver_path, net_path


def healthy_value(name: str, folder: Path) -> float | None:
    """What `trained` gives for the healthy run that `name` ("lenet: rate-too-high") changes, if known."""
    from benchmarks.doctor.healthy import BASES

    base = name.partition(":")[0]
    if base not in BASES:
        return None
    path = folder / "data" / f"{base}_healthy.json"
    if not path.exists():
        path.write_text(json.dumps(trained(*_healthy(base, folder))))
    return float(json.loads(path.read_text()))


def trained(solver_path: Path, net_path: Path) -> float:
    """Return the accuracy, or the loss if there is none, after some hundred steps."""
    import caffe
    from caffe.errors import CaffeError

    text = solver_path.read_text().replace(str(solver_path.parent.parent / "net.prototxt"), str(net_path))
    solver_path.write_text(text)
    try:
        solver = caffe.get_solver(str(solver_path))
        solver.step(_STEPS)
        net = solver.test_nets[0]
        net.share_with(solver.net)
        outputs = [net.forward() for _ in range(4)]
    except CaffeError:
        return float("nan")
    name = "accuracy" if "accuracy" in outputs[0] else "loss"
    return float(sum(float(each[name]) for each in outputs if name in each) / len(outputs))


def line(result: dict[str, Any]) -> str:
    """Format one result as a line."""
    codes, alarms = result["codes"], [alarm["code"] for alarm in result["alarms"]]
    good = _first(result) if codes else not alarms and "error" not in result
    base = next((check["figure"] for check in result.get("checks", []) if check["name"] == "the unchanged run"), "")
    notes = ",".join(note["code"] for note in result["notes"])
    fixed = f" fixed {result['fixed']:.3g}" if "fixed" in result else ""
    text = (
        f"{'ok ' if good else 'BAD'} {result['name']:36} {','.join(alarms)} ({notes}) {result['seconds']:.0f}s {base}"
    )
    return text + fixed + result.get("error", "")[:200]


def _first(result: dict[str, Any]) -> bool:
    return bool(result["alarms"]) and result["alarms"][0]["code"] in result["codes"]


def report(folder: Path) -> int:
    """Print the figures of all results in a folder."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    ill = [result for result in results if result["codes"]]
    well = [result for result in results if not result["codes"]]
    found = [r for r in ill if any(alarm["code"] in r["codes"] for alarm in r["alarms"])]
    first = [r for r in ill if _first(r)]
    alarms = [(alarm["code"] in r["codes"]) for r in results for alarm in r["alarms"]]
    quiet = [r for r in well if not r["alarms"] and "error" not in r]
    print(f"\n{len(ill)} planted faults, {len(well)} healthy runs")
    print(f"found (recall): {_share(len(found), len(ill))}; an accepted cause first: {_share(len(first), len(ill))}")
    print(f"precision of errors and warnings: {_share(sum(alarms), len(alarms))}")
    print(f"healthy runs without an alarm: {_share(len(quiet), len(well))}")
    seconds = sorted(r["seconds"] for r in results)
    if seconds:
        print(f"seconds: median {seconds[len(seconds) // 2]:.1f}, most {seconds[-1]:.1f}")
    fixed = [r for r in results if r.get("healthy") is not None]
    if fixed:
        print(f"after -fix as good as the healthy run: {_share(sum(map(_recovered, fixed)), len(fixed))}")
        print(
            "not as good: "
            + ", ".join(f"{r['name']} ({r['fixed']:.3g}, {r['healthy']:.3g})" for r in fixed if not _recovered(r))
        )
    for result in results:
        wrong = [a["code"] for a in result["alarms"] if a["code"] not in result["codes"]]
        if (result["codes"] and not _first(result)) or wrong or "error" in result:
            print(line(result))
    return 0


def _recovered(result: dict[str, Any]) -> bool:
    """Whether the repaired run reaches 95 % of the healthy accuracy, or at most 1.1 times the healthy loss."""
    fixed, wanted = result["fixed"], result["healthy"]
    is_loss = result["name"].startswith(("auto", "curves"))
    return bool(fixed <= 1.1 * wanted if is_loss else fixed >= 0.95 * wanted)


def _share(part: int, whole: int) -> str:
    return f"{part}/{whole} = {100 * part / whole:.1f} %" if whole else "none"
