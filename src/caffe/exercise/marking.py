"""Marks exercises: whether the cause is named correctly, and whether the repaired run learns in a trial."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caffe.doctor.case import Case
from caffe.doctor.check import checks
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Severity
from caffe.errors import CaffeError, FileError
from caffe.exercise.writing import KEY, STATIC, quality, sources

__all__ = ["Mark", "mark"]

_ENOUGH = 0.8
"""A repair must recover at least this part of the quality lost by the fault."""
_BUDGET = 5.0


@dataclass(frozen=True)
class Mark:
    """The mark of a student's answer: a point for the cause, and one for the repair."""

    student: str
    named: bool
    repaired: bool
    text: str

    @property
    def points(self) -> int:
        return int(self.named) + int(self.repaired)


def mark(folder: str | Path) -> list[Mark]:
    """Mark all students of a folder. Raises FileError if there is no key."""
    top = Path(folder)
    keys = sorted((top / KEY).glob("*/key.json"))
    if not keys:
        raise FileError(f"{folder}: has no {KEY}/*/key.json; give a folder that `caffe exercise make` wrote")
    return [_marked(top / path.parent.name, json.loads(path.read_text())) for path in keys]


def _marked(folder: Path, key: dict[str, Any]) -> Mark:
    answer_path = folder / "answer.txt"
    words = answer_path.read_text().split() if answer_path.exists() else []
    answer = words[0].strip(".,:;").lower() if words else ""
    named = answer in key["codes"]
    fact = f"{answer or 'no answer'}, {'correct' if named else 'it was ' + ' or '.join(key['codes'])}"
    repaired, text = _is_repaired(folder, key)
    return Mark(folder.name, named, repaired, f"{fact}; {text}")


def _is_repaired(folder: Path, key: dict[str, Any]) -> tuple[bool, str]:
    """Return whether the run now learns well, with a description of the result."""
    try:
        if sources(folder) != key["sources"]:
            return False, "the data layers read other sources"
        now = quality(folder)
        code = key["codes"][0]
        if code in STATIC:
            with contextlib.chdir(folder):
                still = _found(code)
            return not still, f"{code} is {'still there' if still else 'gone'}"
    except (CaffeError, OSError) as error:
        return False, f"does not run: {error}"
    need = key["ill"] + _ENOUGH * (key["well"] - key["ill"])
    return now >= need, f"quality {max(0.0, now):.2f}, it was {max(0.0, key['ill']):.2f}, healthy is {key['well']:.2f}"


def _found(code: str) -> bool:
    """Whether the doctor's check of that code finds it in the run of this folder."""
    exam = Exam(Case("solver.prototxt"), _BUDGET)
    try:
        found = [each for check in checks() if code in check.faults for each in check().examine(exam)]
    finally:
        exam.close()
    return any(isinstance(each, Finding) and each.code == code and each.severity > Severity.NOTE for each in found)
