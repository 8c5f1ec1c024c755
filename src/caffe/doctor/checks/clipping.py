"""`clip-too-strong`: clip_gradients makes the gradient almost 0."""

from __future__ import annotations

from collections.abc import Iterator

from caffe.doctor.changes import Change, SetField
from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity


class Clipping(Check):
    """Tries training without gradient clipping if a run with it does not learn."""

    faults = {
        "clip-too-strong": Fault(
            "`clip_gradients` makes the gradient almost 0", "the loss is constant; without the limit it falls"
        ),
    }
    stage = Stage.RUN

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        clip = exam.case.param.clip_gradients
        if clip <= 0 or exam.learns or exam.base.error:
            return
        yield Finding(
            "clip-too-strong",
            Severity.WARNING,
            f"clip_gradients is {clip:g}: gradients are scaled down so far that the weights hardly change",
            f"remove clip_gradients, or raise it to about {max(1.0, 1000 * clip):g}",
            "1 to 35 is usual",
            place=exam.case.place(None, "clip_gradients"),
            change=Change("no clip_gradients", (SetField(None, "clip_gradients", ""),)),
        )
