"""Counts how many nets and solvers of a folder of prototxts build here, and why the others do not.

    python tools/census.py FOLDER [--json FILE] [--markdown FILE] [--skip FILE]

Every file is judged as `caffe inspect` judges it: all layers and fields must be known, and the net must build, on meta
tensors and with constants in the place of data, in each phase in which its own layers deliver data. The reasons are
counted by kind. `--skip` is a JSON object or list whose keys are stems of files that Caffe itself refuses; these are
counted apart. Takes about a second a net.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import warnings
from collections import Counter
from pathlib import Path

from caffe import inspection, log
from caffe.errors import CaffeError

KINDS = (
    ("layer type of a fork", r"layer type \"\w+\" comes from a fork"),
    ("field of a fork", r"comes from a fork of Caffe"),
    ("unknown layer type", r"unknown layer type"),
    ("unknown field", r"has no field"),
    ("not a prototxt", r"expected|unexpected|cannot be parsed"),
)
"""Kind of a refusal and the pattern of its message, the most special first."""


def main(folder: Path, out: Path | None, page: Path | None, skip: Path | None) -> None:
    """Judge the files of a folder and print the counts."""
    skipped = set(json.loads(skip.read_text())) if skip else set()
    rows: dict[str, tuple[str, str]] = {}
    for path in sorted(folder.rglob("*.prototxt")):
        if path.stem not in skipped:
            rows[str(path.relative_to(folder))] = judge(path)
            print(path.name, *rows[str(path.relative_to(folder))], file=sys.stderr)
    for kind in sorted({kind for kind, _ in rows.values()}):
        found = [reason for each, reason in rows.values() if each == kind]
        builds = found.count("")
        print(f"{kind}: {len(found)} files, {builds} build ({100 * builds / len(found):.1f} %)")
    if out:
        out.write_text(json.dumps(rows, indent=0))
    counted = Counter((kind_of(reason), general(reason)) for _, reason in rows.values() if reason)
    lines = [f"| {kind} | {reason} | {count} |" for (kind, reason), count in counted.most_common()]
    text = "\n".join(["| kind | reason | files |", "| --- | --- | --- |", *lines])
    print(text)
    if page:
        page.write_text(text + "\n")


def judge(path: Path) -> tuple[str, str]:
    """Return what a file is, and why it does not build; the reason is empty if it does."""
    try:
        report = inspection.inspect(str(path))
    except CaffeError as error:
        return "neither net nor solver", f"{type(error).__name__}: {error}"
    except Exception as error:
        return "fault of this package", repr(error)
    return report.kind, report.unsupported[0] if report.unsupported else ""


def kind_of(reason: str) -> str:
    """Return the kind of a refusal."""
    return next((kind for kind, pattern in KINDS if re.search(pattern, reason)), "shapes or options")


def general(reason: str) -> str:
    """Return a reason without names and numbers of one net."""
    text = re.sub(r'"?\S*prototxt\S*"?|layer "[^"]*"|bottom "[^"]*"', "", reason)
    return re.sub(r"\d+( x \d+)*|\d+( \d+)+", "#", text).strip(" :,")[:160].replace("|", "/")


if __name__ == "__main__":
    ask = argparse.ArgumentParser()
    ask.add_argument("folder", type=Path)
    for flag in ("--json", "--markdown", "--skip"):
        ask.add_argument(flag, type=Path)
    given = ask.parse_args()
    warnings.simplefilter("ignore")
    with log.quiet():
        main(given.folder, given.json, given.markdown, given.skip)
