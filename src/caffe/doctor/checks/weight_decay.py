"""`weight-decay-too-high`."""

from __future__ import annotations

from collections.abc import Iterator

from caffe.doctor.changes import Change, SetField
from caffe.doctor.check import Check, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity

_USUAL, _HIGH = 0.0005, 0.005


class WeightDecay(Check):
    """Compares a strong weight decay with the usual one."""

    codes = ("weight-decay-too-high",)
    stage = Stage.RUN

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        decay = exam.case.param.weight_decay
        if decay >= _HIGH:
            yield Finding(
                "weight-decay-too-high",
                Severity.WARNING,
                f"weight_decay is {decay:g}: it pulls the weights to 0 faster than the loss can move them",
                f"lower weight_decay from {decay:g} to {_USUAL:g}",
                f"usual is {_USUAL:g}, or less",
                place=exam.case.place(None, "weight_decay"),
                change=Change(f"weight_decay {_USUAL:g}", (SetField(None, "weight_decay", f"{_USUAL:g}"),)),
            )
