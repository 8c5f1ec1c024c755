"""The first loss with stronger regularization: the term that weight decay adds must grow with it."""

from __future__ import annotations

from collections.abc import Iterator

from caffe.doctor.check import Check, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line

_TIMES = 1000


class Regularisation(Check):
    """Reports the first loss including the weight decay term, which Caffe leaves out of the displayed loss.

    The term is weight_decay times the sum of decay_mult w^2 / 2, or of decay_mult |w| for L1. The manual version of
    this check is to raise the weight decay and see that the loss rises above that of a guess.
    """

    faults = {}
    stage = Stage.FIGURES

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        decay, first = float(exam.case.param.weight_decay), exam.base.first
        if exam.base.error:
            return
        if decay <= 0:
            yield Line("first loss with regularization", "weight_decay is 0: nothing is added")
            return
        term = decay * sum(blob.decay_mult * _penalty(exam, blob) for blob in exam.blobs)
        figure = f"{first:.3g} + {term:.3g}; with {_TIMES} times the decay {first:.3g} + {_TIMES * term:.3g}"
        yield Line("first loss with regularization", figure, {"first": first, "term": term, "times": _TIMES})


def _penalty(exam: Exam, blob: object) -> float:
    return float(getattr(blob, "sum_abs" if exam.case.param.regularization_type == "L1" else "half_square"))
