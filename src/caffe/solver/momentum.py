"""Momentum policies: the momentum as a function of the iteration, in place of the solver's `momentum`.

A policy is registered by defining its class; its name in the prototxt is the class name in lower case.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from caffe.solver.policy import Schedule
from caffe.solver.schedules import check_rise, one_cycle

__all__ = ["Momentum", "momentum_policy"]


class Momentum(Schedule, kind="momentum policy"):
    """A momentum policy, selected in the prototxt by `momentum_policy`. Subclasses implement `value`.

    Before each update the policy sets `momentum`, for any rule that uses it (in Adam and its variants, beta 1).
    """

    options: ClassVar[tuple[str, ...]] = ("momentum_start", "momentum_end", "momentum_iter")

    def check(self) -> None:
        self.fraction("momentum_start", "momentum_end")
        self.positive("momentum_iter")

    def value(self, iteration: int) -> float:
        """The momentum at `iteration`."""
        raise NotImplementedError(type(self).__name__)

    def apply(self, iteration: int, rate: float) -> None:
        """Set the solver's momentum for the update of `iteration`, whose learning rate is `rate`."""
        self.rate = rate
        self.param.momentum = self.value(iteration)


class Linear(Momentum):
    """Linear from momentum_start to momentum_end over momentum_iter iterations, then constant.

    Source: Hinton, A Practical Guide to Training Restricted Boltzmann Machines, 2010, section 9.
    """

    def value(self, iteration: int) -> float:
        start, end = self.param.momentum_start, self.param.momentum_end
        return start + (end - start) * min(1.0, iteration / self.param.momentum_iter)


class Sutskever(Momentum):
    """min(1 - (1 - momentum_start) / (floor(iter / momentum_iter) + 1), momentum_end)

    The values 0.5, 0.99 and 250 give the schedule of the paper: 0.5, 0.75, 0.833, ...
    Source: Sutskever et al., ICML 2013, equation 5.
    """

    def value(self, iteration: int) -> float:
        distance = (1 - self.param.momentum_start) / (iteration // self.param.momentum_iter + 1)
        return min(1 - distance, self.param.momentum_end)


class OneCycle(Momentum):
    """From momentum_start to momentum_end while the rate of lr_policy "onecycle" rises, and back while the rate falls.

    Source: Smith & Topin, arXiv:1708.07120, with 0.95 and 0.85.
    """

    options = ("momentum_start", "momentum_end", "rise")

    def check(self) -> None:
        self.fraction("momentum_start", "momentum_end")
        check_rise(self)

    def value(self, iteration: int) -> float:
        start, end = self.param.momentum_start, self.param.momentum_end
        return one_cycle(self.param, iteration, start, end, start)


class Fixed(Momentum):
    """The constant `momentum`, as without a policy. Source: NVCaffe sgd_solver.cpp."""

    options = ()

    def check(self) -> None:
        self.base = self.param.momentum

    def value(self, iteration: int) -> float:
        return self.base


class Poly(Momentum):
    """momentum + (max_momentum - momentum) (iter / max_iter)^momentum_power

    `momentum` is the value in the solver's file. Source: NVCaffe sgd_solver.cpp.
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


class Opt(Momentum):
    """(1 - sqrt(rate) / 2)^2, at most max_momentum if it is set. `rate` is the learning rate of the iteration.

    Source: NVCaffe 0.17, sgd_solver.cpp.
    """

    options = ("max_momentum",)

    def check(self) -> None:
        last = self.param.max_momentum
        self.require(0 <= last < 1, f"max_momentum is {last:g}, expected at least 0 and below 1")
        self.require(0 <= self.param.base_lr <= 4, f"base_lr is {self.param.base_lr:g}, expected from 0 to 4")

    def value(self, iteration: int) -> float:
        value = (1 - math.sqrt(max(0.0, self.rate)) / 2) ** 2
        return min(value, self.param.max_momentum) if self.param.HasField("max_momentum") else value


def momentum_policy(param: Any) -> Momentum | None:
    """Create the momentum policy of a SolverParameter and set the momentum of iteration 0; None if there is no
    policy.
    """
    if not param.momentum_policy:
        return None
    policy: Momentum = Momentum.find(param.momentum_policy)(param)
    policy.apply(0, param.base_lr)
    return policy
