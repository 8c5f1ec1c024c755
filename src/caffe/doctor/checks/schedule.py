"""`rate-not-finite`, `schedule`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity
from caffe.errors import SolverError
from caffe.solver.policy import policy_class

_STEPPING = {"step": "stepsize", "multistep": "stepvalue"}


class ScheduleCheck(Check):
    """Checks the learning rate over the iterations of the run."""

    faults = {
        "rate-not-finite": Fault(
            "the schedule gives no valid rate", "compute the policy's formula at the first and last iteration"
        ),
        "schedule": Fault("the schedule never changes the rate", "its first step is after `max_iter`"),
    }
    stage = Stage.FILES

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        param = exam.case.param
        try:
            rates = self._rates(param)
        except (SolverError, ArithmeticError, ValueError) as error:
            yield self._not_finite(exam, f'lr_policy "{param.lr_policy}" cannot compute a rate: {error}')
            return
        bad = next((i for i, rate in rates.items() if not math.isfinite(rate)), None)
        if bad is not None:
            yield self._not_finite(
                exam, f'lr_policy "{param.lr_policy}" gives the rate {rates[bad]} at iteration {bad}'
            )
            return
        yield Line("rate", f"{next(iter(rates.values())):g} at first, {list(rates.values())[-1]:g} at the end")
        field = _STEPPING.get(param.lr_policy)
        if field and param.max_iter and len(set(rates.values())) == 1 and param.gamma != 1:
            first = param.stepsize if field == "stepsize" else min(param.stepvalue, default=0)
            yield Finding(
                "schedule",
                Severity.WARNING,
                f'lr_policy "{param.lr_policy}" never steps: the first step is at iteration {first:,}, after max_iter '
                f"{param.max_iter:,}",
                f"lower {field} below {param.max_iter:,}, or train longer",
                f"{field} {first:,}, max_iter {param.max_iter:,}",
                place=exam.case.place(None, field),
                certain=True,
            )

    @staticmethod
    def _rates(param: object) -> dict[int, float]:
        """Return the rate at some hundred iterations of the run, including the last."""
        policy = policy_class(param.lr_policy)(param)  # type: ignore[attr-defined]
        last, step, rates = max(param.max_iter, 1), 0, {}  # type: ignore[attr-defined]
        for iteration in sorted({*np.linspace(0, last - 1, 200).astype(int).tolist(), last - 1}):
            for _ in range(1000):  # multistep takes at most one step per iteration
                after = policy.step_at(iteration, step)
                if after == step:
                    break
                step = after
            with np.errstate(all="ignore"):
                rates[iteration] = float(policy.at(iteration, step))
        return rates

    @staticmethod
    def _not_finite(exam: Exam, fact: str) -> Finding:
        return Finding(
            "rate-not-finite",
            Severity.ERROR,
            fact,
            "set the fields that this policy needs (docs/solvers.md), max_iter among them",
            "a rate is a finite number above 0",
            place=exam.case.place(None, "lr_policy"),
            certain=True,
        )
