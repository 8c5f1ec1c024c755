"""`input-ignored`: the outputs do not depend on the input."""

from __future__ import annotations

from collections.abc import Iterator

from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity

_ALIKE = 1e-3


class InputIgnored(Check):
    """Compares a trained net's outputs for different inputs, and its loss with the loss of the best constant output."""

    faults = {
        "input-ignored": Fault(
            "the outputs do not depend on the input", "train with inputs of 0: the loss is no worse"
        ),
    }
    stage = Stage.RUN

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        run = exam.base if exam.learns else exam.long
        if run.failed is not None or run.error or exam.head is None:
            return
        yield Line("answers", f"{100 * run.spread:.2g} % of their size is the variation between inputs")
        if run.spread < _ALIKE and not exam.learns:
            yield Finding(
                "input-ignored",
                Severity.WARNING,
                f'after {len(run.losses)} steps the outputs "{exam.head.outputs}" are the same for every input',
                "see the causes above; look for dead units, a scale of 0, or equal weights",
                f"they differ by {100 * run.spread:.1g} % of their size; a guess is correct equally often",
                layer=exam.head.node.name,
                place=exam.case.place(exam.head.node.index),
                symptom=True,
            )
