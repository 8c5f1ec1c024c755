"""`rate-too-high`, `rate-too-low`."""

from __future__ import annotations

import math
from collections.abc import Iterator

from caffe.doctor.changes import Change, SetField
from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity

_USUAL = 1e-3
"""The usual ratio of an update to the weights."""
_REACH = 0.3
"""The smallest relative change that the weights must be able to reach in a whole run."""


class Rate(Check):
    """Tries other learning rates if the run fails or learns poorly."""

    faults = {
        "rate-too-high": Fault(
            "the steps jump over the minimum", "the loss grows within a few steps, but not with a tenth of `base_lr`"
        ),
        "rate-too-low": Fault(
            "the weights hardly change",
            "updates are far below 1/1000 of the weights; ten times `base_lr` lowers the loss",
        ),
    }
    stage = Stage.RUN

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        ratios = [blob.ratio for blob in exam.blobs if blob.index == 0 and blob.update and math.isfinite(blob.ratio)]
        largest = max(ratios, default=0.0)
        yield Line("update against weights", f"{largest:.1e} at most in the first step (about 1e-3 is usual)")
        yield Line("the unchanged run", exam.base.text)
        rate = exam.case.param.base_lr
        if exam.base.error or rate <= 0 or (exam.learns and not exam.base.grown):
            return
        if exam.base.failed is not None or exam.base.losses.max() > 2 * exam.base.first or largest > 0.1:
            yield from self._search(exam, [rate / 10, rate / 100, rate / 1000], largest, high=True)
        if exam.base.failed is None and largest < 10 * _USUAL and self._reach(exam, largest) < _REACH:
            yield from self._search(exam, self._higher(rate, largest), largest, high=False)

    @staticmethod
    def _higher(rate: float, ratio: float) -> list[float]:
        """Return rates to try. The first makes an update about 1/1000 of the weights."""
        power = max(1, round(math.log10(_USUAL / ratio))) if ratio > 0 else 2
        return [rate * 10**each for each in (power, power + 1, power + 2, power - 1) if each > 0]

    @staticmethod
    def _reach(exam: Exam, ratio: float) -> float:
        """Return the relative change of the weights over the whole run, extrapolated from the first step."""
        param = exam.case.param
        carried = 1 / (1 - param.momentum) if param.type in ("SGD", "Nesterov") and 0 <= param.momentum < 1 else 1.0
        return ratio * carried * max(param.max_iter, exam.steps)

    def _search(self, exam: Exam, rates: list[float], ratio: float, high: bool) -> Iterator[Finding]:
        rate = exam.case.param.base_lr
        changes = [Change(f"base_lr {each:g}", (SetField(None, "base_lr", f"{each:g}"),)) for each in rates]
        found = exam.first_that_helps(changes)
        if found is None:
            return
        change, proof = found
        way = "lower" if high else "raise"
        steps = "too large: the loss grows" if high else "too small: the weights hardly change"
        yield Finding(
            "rate-too-high" if high else "rate-too-low",
            Severity.ERROR if exam.base.failed is not None else Severity.WARNING,
            f"base_lr is {rate:g}: the steps are {steps}",
            f"{way} base_lr from {rate:g} to about {change.text.split()[-1]}",
            f"the first update is {ratio:.1e} of the weights; about 1e-3 is usual",
            place=exam.case.place(None, "base_lr"),
            change=change,
            proof=proof,
            may_pass=not high,
        )
