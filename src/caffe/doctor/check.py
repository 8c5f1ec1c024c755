"""The base class of all checks. A check is registered by defining its class."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from caffe.doctor.finding import Finding, Line, Severity

if TYPE_CHECKING:
    from caffe.doctor.exam import Exam
    from caffe.doctor.view import Node

__all__ = ["Check", "Fault", "Stage", "certain", "checks", "codes"]


class Stage(IntEnum):
    """The stage of a check: what it needs.

    The stages run in this order. The first needs neither data nor a training step. The last only reports figures, after
    the findings are verified.
    """

    FILES = 0
    DATA = 1
    START = 2
    RUN = 3
    FIGURES = 4


class Fault(NamedTuple):
    """What the page about the doctor says of a fault: what it means, and how to check it manually."""

    meaning: str
    by_hand: str


class Check(ABC):
    """Looks for faults. Modules in `caffe.doctor.checks` are imported automatically."""

    faults: ClassVar[Mapping[str, Fault]]
    """The faults by their codes. Empty for a check that only reports figures, or codes of another check."""
    stage: ClassVar[Stage]
    known: ClassVar[list[type[Check]]] = []

    def __init_subclass__(cls) -> None:
        Check.known.append(cls)

    @abstractmethod
    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        """Yield findings and figures."""


def certain(
    exam: Exam, node: Node, code: str, message: str, advice: str, evidence: str, severity: Severity = Severity.WARNING
) -> Finding:
    """Create a finding about a layer that needs no trial, because the fault is certain."""
    place = exam.case.place(node.index)
    return Finding(code, severity, message, advice, evidence, layer=node.name, place=place, certain=True)


def checks() -> list[type[Check]]:
    """Return all checks, sorted by stage and name. Imports the modules of `caffe.doctor.checks`."""
    package = importlib.import_module("caffe.doctor.checks")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return sorted(Check.known, key=lambda check: (check.stage, check.__name__))


def codes() -> list[str]:
    """Return the codes of all checks, sorted."""
    return sorted(code for check in checks() for code in check.faults)
