"""The base of all checks: a class statement makes a check known."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar

from caffe.doctor.finding import Finding, Line

if TYPE_CHECKING:
    from caffe.doctor.exam import Exam

__all__ = ["Check", "Stage", "checks", "codes"]


class Stage(IntEnum):
    """What a check looks at. The stages follow one another; the first needs no data and no step, the last
    only tells figures, after the findings are proved."""

    FILES = 0
    DATA = 1
    START = 2
    RUN = 3
    FIGURES = 4


class Check(ABC):
    """Looks for the faults of its `codes`. Its module in `caffe.doctor.checks` needs no other mention."""

    codes: ClassVar[tuple[str, ...]]
    stage: ClassVar[Stage]
    known: ClassVar[list[type[Check]]] = []

    def __init_subclass__(cls) -> None:
        Check.known.append(cls)

    @abstractmethod
    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        """The findings and figures."""


def checks() -> list[type[Check]]:
    """All checks, by stage and then by name. Importing the modules of `caffe.doctor.checks` adds them."""
    package = importlib.import_module("caffe.doctor.checks")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return sorted(Check.known, key=lambda check: (check.stage, check.__name__))


def codes() -> list[str]:
    """The codes of all checks, sorted."""
    return sorted(code for check in checks() for code in check.codes)
