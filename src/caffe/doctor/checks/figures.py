"""Figures for a sanity check: the first loss, overfitting twenty items, and a learning rate range test."""

from __future__ import annotations

import math
from collections.abc import Iterator

from caffe.doctor.check import Check, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line


class FirstLoss(Check):
    """Compares the first loss with the loss of a guess."""

    faults = {}
    stage = Stage.FIGURES

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        head, base = exam.head, exam.base
        if head is None or base.error:
            return
        shape = exam.shapes.get(head.outputs, ())
        if head.classes and -len(shape) <= head.axis < len(shape):
            guess = math.log(max(1, shape[head.axis]))
            data = {"first": base.first, "guess": guess}
            yield Line("first loss", f"{base.first:.3g}; a guess among {shape[head.axis]} has {guess:.3g}", data)
        elif math.isfinite(base.chance):
            yield Line("first loss", f"{base.first:.3g}; predicting the mean gives {base.chance:.3g}")


class ByHeart(Check):
    """Overfits twenty items, without weight decay and dropout."""

    faults = {}
    stage = Stage.FIGURES

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        if exam.base.failed is None and not exam.base.error:
            yield Line("overfitting a few items", exam.by_heart.text, {"learned": exam.by_heart.learned})


class RateRange(Check):
    """Raises the learning rate in steps, from one that changes nothing to one at which the loss diverges."""

    faults = {}
    stage = Stage.FIGURES

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        found = exam.rates
        if found is not None:
            yield Line("rates", found.text, found.as_dict())
