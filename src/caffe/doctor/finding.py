"""What a check says: findings, and lines with a figure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from caffe.doctor.changes import Change

__all__ = ["Finding", "Line", "Proof", "Severity"]


class Severity(IntEnum):
    """How much a finding matters. An exit code of 3 tells of errors and warnings; a note is for information."""

    NOTE = 0
    WARNING = 1
    ERROR = 2

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Proof:
    """What the replay of a change showed. `quality` is that of the changed run, `gain` its difference to the other,
    `steps` how many there were."""

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
    """One thing that a check found.

    `message` states the fact, `evidence` the number against what is usual, `advice` what to change to what. `change` is
    that advice in a form that can be tried; `proof` is the result. `follows` is the code of the cause of which this is
    a consequence.
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
    """Whether the fact alone is enough, so that a change that does not help in a short run refutes nothing."""
    may_pass: bool = False
    """Whether a run may overcome this by itself: where it does in some thousand steps, it is a slow start, a note."""
    symptom: bool = False
    """Whether this only tells that something is wrong: a note that follows from the cause, where one is found."""

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON has it."""
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
    """A figure that a check measured: `name` in a few words, `figure` with what is usual."""

    name: str
    figure: str
    data: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "figure": self.figure, **self.data}
