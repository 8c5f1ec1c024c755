"""`diverges`, `loss-stuck-at-87.3`: symptoms of a broken run whose cause is another finding."""

from __future__ import annotations

import math
from collections.abc import Iterator

from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.curves import UNDERFLOW
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity


class Diverges(Check):
    """Checks the end of the run: a loss that is NaN, far above its start, or the loss of a probability of 0."""

    faults = {
        "diverges": Fault("the loss grows or is NaN", "a symptom: look for its cause"),
        "loss-stuck-at-87.3": Fault(
            "the softmax gives the correct class a probability of 0",
            "the loss is exactly 87.3365, -ln of the smallest float32",
        ),
    }
    stage = Stage.RUN

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        base = exam.base
        if base.error:
            return
        last = base.losses[-max(1, len(base.losses) // 4) :]
        if base.failed is None and math.isclose(float(last.max()), UNDERFLOW, rel_tol=1e-3):
            yield Finding(
                "loss-stuck-at-87.3",
                Severity.ERROR,
                f"the loss stays at {UNDERFLOW}: the softmax gives the correct class a probability of 0",
                "the outputs have grown too large: lower base_lr, or scale the input down",
                f"loss {float(last.mean()):.4g}; guessing has about {math.log(10):.2g} with 10 classes",
                symptom=True,
            )
        elif base.grown:
            yield Finding(
                "diverges",
                Severity.ERROR,
                f"training diverges: {base.text}, from {base.first:.3g}",
                "lower base_lr, or see the causes above",
                base.text,
                symptom=True,
            )
