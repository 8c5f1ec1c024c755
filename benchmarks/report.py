"""Results: stored as JSON, shown as Markdown with a picture. `python -m benchmarks report` writes the pages."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import platform
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import goals, listed, picture
from benchmarks.goals import value
from benchmarks.rounds import OURS

RESULTS = Path(__file__).parent / "results"
TITLES = {
    "training": "A training step, milliseconds",
    "limits": "A training step and what the machine allows, milliseconds",
    "inference": "Inference, milliseconds",
    "single": "Inference of one image, milliseconds",
    "small": "A training step of small nets, milliseconds",
    "layers": "One image layer by layer, milliseconds",
    "loading": "AlexNet's 240 MB of weights read, milliseconds",
    "memory": "Peak memory of a training step, megabytes",
}
PACKAGES = ("torch", "onnxruntime", "openvino", "opencv-python-headless")
GOAL_HEAD = ["| goal | against | wanted | measured | |", "| --- | --- | --- | --- | --- |"]


def progress(name: str, engines: Mapping[str, Any]) -> None:
    """Print a progress line for a finished row."""
    took = {engine: value(found) for engine, found in engines.items()}
    print(f"{name}: " + ", ".join(f"{engine} {ms:.2f}" for engine, ms in took.items() if ms is not None), flush=True)


def save(part: str, rows: dict[str, Any], given: argparse.Namespace) -> None:
    """Print the part's tables; if all of it was measured, store the results."""
    found = {"machine": machine(given.cores), "rounds": given.rounds, "seconds": given.seconds, "rows": rows}
    print("\n" + "\n".join(markdown(part, found)))
    if given.whole:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{part}.json").write_text(json.dumps(rounded(found), indent=1) + "\n")
        write()


def keep(part: str, figures: dict[str, float]) -> None:
    """Store the figures of a part that goals refer to, and write the list of goals."""
    RESULTS.mkdir(exist_ok=True)
    found = {"machine": machine(2), "figures": rounded(figures)}
    (RESULTS / f"{part}.json").write_text(json.dumps(found, indent=1) + "\n")
    list_goals()


def list_goals() -> None:
    """Write the list of goals from the stored figures of all parts."""
    stored = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    if "training" in stored:
        stored["limits"] = {"rows": tables("training", stored["training"]["rows"])["limits"]}
    (RESULTS / "goals.md").write_text("\n".join(listed.lines(stored)) + "\n")


def write() -> None:
    """Write all tables, the list of goals and the pictures from the stored figures."""
    kept = {part: json.loads(path.read_text()) for part in TITLES if (path := RESULTS / f"{part}.json").exists()}
    for part, found in kept.items():
        lines = [*markdown(part, found), "", f"![{TITLES[part]}]({part}.png)"]
        (RESULTS / f"{part}.md").write_text("\n".join(lines) + "\n")
        picture.draw(TITLES[part], found["rows"], RESULTS / f"{part}.png")
    list_goals()


def tables(part: str, rows: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the part's rows and, for training, a second table with the limit as an engine."""
    if part != "training":
        return {part: rows}
    limits = {}
    for name, row in rows.items():
        product = row["engines"].get("matrix product")
        if row["flops"] and product and "least" in product:
            rate = 2 * 2048**3 / product["least"] / 1e6
            limit = {"ms": 3 * row["flops"] / rate / 1e6}
            limits[name] = {"GFLOP": row["flops"] / 1e9, "GFLOP/s": rate}
            limits[name]["engines"] = {
                **{k: v for k, v in row["engines"].items() if k.startswith(OURS)},
                "limit": limit,
            }
    steps = {
        name: {**row, "engines": {k: v for k, v in row["engines"].items() if k != "matrix product"}}
        for name, row in rows.items()
    }
    return {"training": steps, "limits": limits}


def markdown(part: str, found: Mapping[str, Any]) -> Iterable[str]:
    """Return the part as lines of Markdown."""
    lines = [f"# {TITLES[part]}", "", f"Medians of rounds that take turns; less is better. {found['machine']}", ""]
    for name, rows in tables(part, found["rows"]).items():
        if not rows:
            continue
        lines += ["", f"## {TITLES[name]}", ""] if name != part else []
        lines += [*table(rows), "", *notes(rows)]
        judged = list(goals.judged(name, rows))
        lines += ["", *GOAL_HEAD, *judged] if judged else []
    return lines


def table(rows: Mapping[str, Any]) -> Iterable[str]:
    """Return the figure of each engine, and its ratio to the first engine."""
    names = list(next(iter(rows.values()))["engines"])
    further = [key for key in ("GFLOP", "GFLOP/s", "step") if key in next(iter(rows.values()))]
    yield "| | " + " | ".join([*names, *further]) + " |"
    yield "| --- |" + " ---: |" * len([*names, *further])
    multiples: dict[str, list[float]] = {name: [] for name in names}
    for name, row in rows.items():
        first = value(row["engines"][names[0]])
        cells = []
        for engine in names:
            took = value(row["engines"].get(engine, {}))
            if took and first and min(took, first) > 0:  # a step of a small net may need no measurable memory
                multiples[engine].append(took / first)
            cells.append(cell(row["engines"].get(engine, {}), first, engine == names[0]))
        batch = f", batch {row['batch']}" if "batch" in row else ""
        yield f"| {name}{batch} | " + " | ".join([*cells, *(f"{row[key]:.1f}" for key in further)]) + " |"
    means = [f"{statistics.geometric_mean(m):.2f}x" if m else "" for m in multiples.values()]
    yield "| geometric mean | " + " | ".join(["1", *means[1:], *([""] * len(further))]) + " |"


def cell(found: Mapping[str, Any], first: float | None, is_first: bool) -> str:
    """Format one figure: `12.3 (1.45x)`, with a mark if one thread was faster than all."""
    took = value(found)
    if took is None:
        return "-"
    digits = 3 if took < 1 else 2 if took < 10 else 1
    multiple = "" if is_first or not first or min(took, first) <= 0 else f" ({took / first:.2f}x)"
    return f"{took:,.{digits}f}{multiple}" + ("¹" if found.get("threads") == 1 else "")


def notes(rows: Mapping[str, Any]) -> Iterable[str]:
    """Return notes on threads, missing measurements, and differences of outputs."""
    if any(found.get("threads") == 1 for row in rows.values() for found in row["engines"].values()):
        yield "¹ with one thread, which was faster than with more."
    reasons = {f["error"]: None for row in rows.values() for f in row["engines"].values() if "error" in f}
    yield from (f"Not measured: {reason}." for reason in reasons)
    differences: dict[str, float] = {}
    for row in rows.values():
        for engine, found in row["engines"].items():
            if "difference" in found:
                differences[engine] = max(differences.get(engine, 0.0), found["difference"])
    if len(differences) > 1:
        shown = ", ".join(f"{engine} {far:.1g}" for engine, far in list(differences.items())[1:])
        yield f"Greatest difference of an output from ours, in parts of the greatest value: {shown}."


def machine(cores: int) -> str:
    """Describe the machine and the versions of packages."""
    model = platform.processor() or platform.machine()
    features = ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        fields = {key.strip(): content.strip() for key, content in lines.items()}
        model = fields.get("model name", model)
        have = set(fields.get("flags", "").split())
        features = "".join(f", {name}" for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in have)
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    today = datetime.date.today().isoformat()
    return f"{model}{features}; {cores} processors; {', '.join(versions)}; {today}."


def rounded(found: Any) -> Any:
    """Round numbers to five digits."""
    if isinstance(found, dict):
        return {key: rounded(entry) for key, entry in found.items()}
    if isinstance(found, list):
        return [rounded(entry) for entry in found]
    return float(f"{found:.5g}") if isinstance(found, float) else found


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    write()
