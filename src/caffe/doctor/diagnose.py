"""Runs the checks on a case and ranks the findings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caffe.doctor.case import Case
from caffe.doctor.changes import Change
from caffe.doctor.check import Stage, checks
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity
from caffe.errors import CaffeError, FileError, require_extra

__all__ = ["Report", "diagnose"]


@dataclass(frozen=True)
class Report:
    """The findings in order of importance, the figures, and the time taken.

    `static_seconds` is the time of the first stage.
    """

    case: Case
    findings: list[Finding]
    lines: list[Line]
    seconds: float
    static_seconds: float
    exam: Exam

    @property
    def alarms(self) -> list[Finding]:
        """The errors and warnings."""
        return [finding for finding in self.findings if finding.severity > Severity.NOTE]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a JSON-compatible dict."""
        return {
            "findings": [finding.as_dict() for finding in self.findings],
            "checks": [line.as_dict() for line in self.lines],
            "seconds": round(self.seconds, 3),
        }

    def draw(self, folder: str | Path) -> list[Path]:
        """Draw the measurements into a folder, with matplotlib. Raises MissingExtra and FileError."""
        require_extra("matplotlib", "plot", "drawing pictures")
        from caffe.doctor import pictures

        try:
            return pictures.draw(self.exam, Path(folder))
        except OSError as error:
            raise FileError(f"cannot write pictures into {folder}: {error.strerror}") from error

    def fix(self, folder: str | Path) -> list[Path]:
        """Write the solver and the net, with the changes of all alarms, to a folder, which is created if needed.

        Comments are kept, and the solver names the new net. Raises ProtoError for files that cannot be edited, and
        FileError.
        """
        changes = [finding.change for finding in self.alarms if finding.change is not None]
        return self.case.write(Change.together(changes), folder)


def diagnose(
    path: str | Path, weights: str = "", budget: float = 60.0, tell: Callable[[Finding | Line], None] | None = None
) -> Report:
    """Examine a solver prototxt within about `budget` seconds.

    `tell` is called with each figure and finding as it is found. Raises CaffeError for files that cannot be read or
    built.
    """
    begin = time.monotonic()
    exam = Exam(Case(path, weights), budget)
    findings: list[Finding] = []
    lines: list[Line] = []
    static = 0.0
    proved = 0
    try:
        for check in checks():
            if check.stage > Stage.FILES and not static:
                static = time.monotonic() - begin
            if check.stage > Stage.RUN:
                for finding in findings[proved:]:
                    exam.prove(finding)
                proved = len(findings)
            for found in check().examine(exam):
                if isinstance(found, Line):
                    lines.append(found)
                else:
                    findings.append(found)
                if tell is not None:
                    tell(found)
    except CaffeError:
        if not any(finding.severity == Severity.ERROR for finding in findings):
            raise  # otherwise an error that was found prevents the net from being built
    finally:
        exam.close()
    for finding in findings[proved:]:
        exam.prove(finding)
    return Report(exam.case, _ranked(findings), lines, time.monotonic() - begin, static, exam)


def _ranked(findings: list[Finding]) -> list[Finding]:
    """Sort by severity, then by the gain in the trial. Symptoms become notes that follow from the first cause."""
    causes = [finding for finding in findings if finding.severity > Severity.NOTE and not finding.symptom]
    if causes:
        first = min(causes, key=lambda finding: (-finding.severity, -_weight(finding)))
        for finding in findings:
            if finding.symptom:
                finding.severity, finding.follows = Severity.NOTE, first.code
    ranked = sorted(findings, key=_order)
    repairs: dict[Any, str] = {}
    for finding in ranked:  # findings that one change fixes have one cause
        edits = finding.change.edits if finding.change else ()
        if edits and finding.severity > Severity.NOTE and repairs.setdefault(edits, finding.code) != finding.code:
            finding.severity, finding.follows = Severity.NOTE, repairs[edits]
    return sorted(ranked, key=_order)


def _order(finding: Finding) -> tuple[int, bool, float, str]:
    return -finding.severity, finding.symptom, -_weight(finding), finding.code


def _weight(finding: Finding) -> float:
    return finding.proof.gain if finding.proof else (0.3 if finding.certain else 0.0)
