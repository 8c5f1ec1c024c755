"""The results of checks: findings, and lines with a figure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from caffe.doctor.changes import Change

__all__ = ["Finding", "Line", "Proof", "Severity"]


class Severity(IntEnum):
    """The severity of a finding. The exit code 3 means errors or warnings; a note is informational."""

    NOTE = 0
    WARNING = 1
    ERROR = 2

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Proof:
    """The result of a trial of a change.

    `quality` is the quality of the changed run, `gain` the difference to the unchanged run, `steps` the number of
    steps.
    """

    before: str
    after: str
    gain: float
    quality: float
    steps: int = 0

    @property
    def text(self) -> str:
        return f"{self.before}; {self.after}"


@dataclass
class Finding:
    """One fault that a check found.

    `message` states the fact, `evidence` gives the number and its usual range, `advice` says what to change. `change`
    is the advice as a change that can be tried; `proof` is the result of the trial. `follows` is the code of the
    finding that causes this one.
    """

    code: str
    severity: Severity
    message: str
    advice: str
    evidence: str = ""
    layer: str = ""
    place: str = ""
    change: Change | None = None
    proof: Proof | None = None
    follows: str = ""
    certain: bool = False
    """Whether the fact is certain, so that a short trial whose change does not help does not refute it."""
    may_pass: bool = False
    """Whether a run can recover from this by itself.

    If it does so within some thousand steps, the finding becomes a note.
    """
    symptom: bool = False
    """Whether this is only a symptom. It becomes a note that follows from the cause if one is found."""

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as a JSON-compatible dict."""
        return {
            "code": self.code,
            "severity": self.severity.word,
            "layer": self.layer,
            "place": self.place,
            "message": self.message,
            "advice": self.advice,
            "evidence": self.evidence,
            "proof": self.proof.text if self.proof else "",
            "change": self.change.text if self.change else "",
            "follows": self.follows,
        }


@dataclass(frozen=True)
class Line:
    """A figure that a check measured: a short `name`, and `figure` with the usual value."""

    name: str
    figure: str
    data: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "figure": self.figure, **self.data}
