"""`weight-decay-too-high`."""

from __future__ import annotations

from collections.abc import Iterator

from caffe.doctor.changes import Change, SetField
from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity

_USUAL, _HIGH = 0.0005, 0.005


class WeightDecay(Check):
    """Compares a strong weight decay with the usual value."""

    faults = {
        "weight-decay-too-high": Fault(
            "the decay is stronger than the gradient", "weights shrink to 0, the loss approaches that of a guess"
        ),
    }
    stage = Stage.RUN

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        decay = exam.case.param.weight_decay
        if decay >= _HIGH:
            yield Finding(
                "weight-decay-too-high",
                Severity.WARNING,
                f"weight_decay is {decay:g}: it shrinks the weights faster than the loss changes them",
                f"lower weight_decay from {decay:g} to {_USUAL:g}",
                f"{_USUAL:g} or less is usual",
                place=exam.case.place(None, "weight_decay"),
                change=Change(f"weight_decay {_USUAL:g}", (SetField(None, "weight_decay", f"{_USUAL:g}"),)),
            )
