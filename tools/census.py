"""Counts how many nets and solvers of a folder of prototxts build here, and why the others do not.

    python tools/census.py FOLDER [--json FILE] [--markdown FILE] [--skip FILE] [--names FILE]

Every file is checked in the same way as by `caffe inspect`: all layers and fields must be known, and the net must
build, on meta tensors and with constants instead of data, in each phase in which its own layers deliver data. The
reasons are counted by kind, and every file that does not build is listed. `--skip` is a JSON object or list of stems of
files that Caffe itself rejects; these are omitted. `--names` is a JSON object that maps a stem to {"where": [name,
...]}. Takes about half a second per net.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

from caffe import inspection, log
from caffe.errors import CaffeError

KINDS = (
    ("a fault of this package", r"^fault"),
    ("a layer type of a fork that is not here", r"layer type \"\w+\" comes from a fork"),
    ("a field or value of a fork that is not here", r"comes from (a|another) fork|is of another fork|is another layer"),
    ("an unknown layer type", r"unknown layer type"),
    ("not a net, though the list says so", r"is this the file of a solver"),
    ("an unknown field", r"has no field"),
    (
        "shapes follow from data that are not here",
        r"HDF5 file list|new shape|equal counts|boxes, 8\)|cannot share param",
    ),
)
"""Kind of a refusal and the pattern of its message, the most special first."""


def main(given: argparse.Namespace) -> None:
    """Judge the files of a folder and print the counts."""
    skipped = set(json.loads(given.skip.read_text())) if given.skip else set()
    names: dict[str, Any] = json.loads(given.names.read_text()) if given.names else {}
    rows: dict[str, tuple[str, str]] = {}
    for path in sorted(given.folder.rglob("*.prototxt")):
        if path.stem in skipped:
            continue
        name = names[path.stem]["where"][0] if path.stem in names else str(path.relative_to(given.folder))
        rows[name] = judge(path)
        print(name, *rows[name], file=sys.stderr)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=0))
    text = page(rows)
    print(text)
    if given.markdown:
        given.markdown.write_text(text + "\n")


def judge(path: Path) -> tuple[str, str]:
    """Return what a file is, and why it does not build; the reason is empty if it does."""
    try:
        report = inspection.inspect(str(path))
    except CaffeError as error:
        return "neither a net nor a solver", f"{type(error).__name__}: {error}"
    except Exception as error:
        return "neither a net nor a solver", f"fault: {error!r}"
    return report.kind, report.unsupported[0] if report.unsupported else ""


def page(rows: dict[str, tuple[str, str]]) -> str:
    """Return the counts, and the files that do not build with their reasons, as Markdown."""
    lines = ["| files | build |", "| --- | --- |"]
    for kind in sorted({kind for kind, _ in rows.values()}):
        found = [reason for each, reason in rows.values() if each == kind]
        builds = found.count("")
        lines.append(f"| {kind}, {len(found)} | {builds} ({100 * builds / len(found):.1f} %) |")
    groups: dict[str, list[str]] = defaultdict(list)
    for name, (_, reason) in rows.items():
        if reason:
            groups[kind_of(reason)].append(f"| {name} | {general(reason)} |")
    for kind, found in sorted(groups.items(), key=lambda group: -len(group[1])):
        lines += [
            "",
            f"**{kind[0].upper()}{kind[1:]}: {len(found)}**",
            "",
            "| file | reason |",
            "| --- | --- |",
            *sorted(found),
        ]
    return "\n".join(lines)


def kind_of(reason: str) -> str:
    """Return the kind of a refusal."""
    return next((kind for kind, pattern in KINDS if re.search(pattern, reason)), "other shapes or options")


def general(reason: str) -> str:
    """Return a reason without the path of the file, short, and fit for a table."""
    text = re.sub(r"^\w+Error: |\S*\.prototxt:\d+: | \(from [^)]*\)|in (TRAIN|TEST) it cannot be built: ", "", reason)
    return (text if len(text) < 200 else text[:197] + "...").replace("|", "/")


if __name__ == "__main__":
    ask = argparse.ArgumentParser()
    ask.add_argument("folder", type=Path)
    for flag in ("--json", "--markdown", "--skip", "--names"):
        ask.add_argument(flag, type=Path)
    warnings.simplefilter("ignore")
    with log.quiet():
        main(ask.parse_args())
