"""`momentum-too-high`."""

from __future__ import annotations

from collections.abc import Iterator

from caffe.doctor.changes import Change, SetField
from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity

_HIGH = 0.97


class Momentum(Check):
    """Compares a momentum near 1 with 0.9."""

    faults = {
        "momentum-too-high": Fault("old gradients act for too long", "the loss oscillates with a growing period"),
    }
    stage = Stage.RUN

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        momentum = exam.case.param.momentum
        if momentum >= _HIGH and exam.case.param.type != "AdaDelta":
            change = Change("momentum 0.9", (SetField(None, "momentum", "0.9"),))
            yield Finding(
                "momentum-too-high",
                Severity.ERROR if momentum >= 1 else Severity.WARNING,
                f"momentum is {momentum:g}: a gradient acts for {1 / max(1e-6, 1 - momentum):,.0f} iterations",
                f"lower momentum from {momentum:g} to 0.9",
                "usual is 0.9",
                place=exam.case.place(None, "momentum"),
                change=change,
                proof=exam.long_proof(change) if momentum < 1 else None,
                certain=momentum >= 1,
            )
