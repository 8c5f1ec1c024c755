"""Momentum policies: the momentum as a function of the iteration, in place of the solver's `momentum`.

Defining the class makes the policy known, under its name in lower case.
"""

from __future__ import annotations

from typing import Any, ClassVar

from caffe.solver.policy import Schedule
from caffe.solver.schedules import check_rise, one_cycle

__all__ = ["Momentum", "momentum_policy"]


class Momentum(Schedule, kind="momentum policy"):
    """A momentum policy, named in the prototxt by `momentum_policy`; a subclass writes `value`.

    It sets `momentum` itself before each update, for any rule that has one: the first beta of Adam and its kin.
    """

    options: ClassVar[tuple[str, ...]] = ("momentum_start", "momentum_end", "momentum_iter")

    def check(self) -> None:
        self.fraction("momentum_start", "momentum_end")
        self.positive("momentum_iter")

    def value(self, iteration: int) -> float:
        """The momentum at `iteration`."""
        raise NotImplementedError(type(self).__name__)

    def apply(self, iteration: int) -> None:
        """Set the solver's momentum for the update of `iteration`."""
        self.param.momentum = self.value(iteration)


class Linear(Momentum):
    """From momentum_start to momentum_end in momentum_iter iterations, in equal steps; then momentum_end.

    Source: Hinton, A Practical Guide to Training Restricted Boltzmann Machines, 2010, section 9.
    """

    def value(self, iteration: int) -> float:
        start, end = self.param.momentum_start, self.param.momentum_end
        return start + (end - start) * min(1.0, iteration / self.param.momentum_iter)


class Sutskever(Momentum):
    """min(1 - (1 - momentum_start) / (floor(iter / momentum_iter) + 1), momentum_end)

    With 0.5, 0.99 and 250 the schedule of the paper: 0.5, 0.75, 0.833, ...
    Source: Sutskever et al., ICML 2013, equation 5.
    """

    def value(self, iteration: int) -> float:
        distance = (1 - self.param.momentum_start) / (iteration // self.param.momentum_iter + 1)
        return min(1 - distance, self.param.momentum_end)


class OneCycle(Momentum):
    """From momentum_start to momentum_end while the rate of lr_policy "onecycle" rises, and back while it falls.

    Source: Smith & Topin, arXiv:1708.07120; 0.95 and 0.85 there.
    """

    options = ("momentum_start", "momentum_end", "rise")

    def check(self) -> None:
        self.fraction("momentum_start", "momentum_end")
        check_rise(self)

    def value(self, iteration: int) -> float:
        start, end = self.param.momentum_start, self.param.momentum_end
        return one_cycle(self.param, iteration, start, end, start)


class Fixed(Momentum):
    """momentum, as without a policy. Source: NVCaffe sgd_solver.cpp."""

    options = ()

    def check(self) -> None:
        self.base = self.param.momentum

    def value(self, iteration: int) -> float:
        return self.base


class Poly(Momentum):
    """momentum + (max_momentum - momentum) (iter / max_iter)^momentum_power, momentum as the file sets it

    Source: NVCaffe sgd_solver.cpp.
    """

    options = ("max_momentum", "momentum_power")

    def check(self) -> None:
        self.positive("max_iter")
        self.not_negative("momentum_power")
        self.base, last = self.param.momentum, self.param.max_momentum
        self.require(0 <= last < 1, f"max_momentum is {last:g}, expected at least 0 and below 1")

    def value(self, iteration: int) -> float:
        share = min(1.0, iteration / self.param.max_iter) ** self.param.momentum_power
        return self.base + (self.param.max_momentum - self.base) * share


def momentum_policy(param: Any) -> Momentum | None:
    """The momentum policy of a SolverParameter, which sets the momentum of iteration 0; None where it has none."""
    if not param.momentum_policy:
        return None
    policy: Momentum = Momentum.find(param.momentum_policy)(param)
    policy.apply(0)
    return policy
