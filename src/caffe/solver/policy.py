"""Learning rate policies: the rate as a function of the iteration.

Defining the class makes the policy known, under its name in lower case.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from caffe.errors import SolverError, did_you_mean

__all__ = ["Policy", "policy_class", "policy_names"]

_REGISTRY: dict[str, type[Policy]] = {}


class Policy:
    """A learning rate policy, named in the prototxt by `lr_policy`.

    A subclass writes `rate` and, where it counts steps, `step_at`. Snapshots keep the number of steps taken.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        name = cls.__name__.lower()
        if _REGISTRY.setdefault(name, cls) is not cls:
            raise SolverError(f'learning rate policy "{name}" is defined twice; rename one of them')

    def __init__(self, param: Any) -> None:
        """`param` is the SolverParameter, read anew at every iteration."""
        self.param = param
        self.check()

    def check(self) -> None:
        """Raise a `SolverError` for settings that the policy cannot work with."""

    def step_at(self, iteration: int, step: int) -> int:
        """The number of steps taken at `iteration`, when it was `step` before."""
        return step

    def rate(self, iteration: int, step: int) -> float:
        """The learning rate at `iteration` after `step` steps."""
        raise NotImplementedError(type(self).__name__)

    def at(self, iteration: int, step: int) -> float:
        """`rate`, checked to be a number."""
        rate = self.rate(iteration, step)
        if not np.isfinite(rate):
            self.require(False, f"gives a rate of {rate:g} at iteration {iteration} (max_iter {self.param.max_iter})")
        return rate

    def require(self, condition: bool, fact: str) -> None:
        """Raise the error `fact` unless `condition` holds."""
        if not condition:
            raise SolverError(f'learning rate policy "{type(self).__name__.lower()}": {fact}')

    def positive(self, name: str) -> None:
        """Require a field above 0."""
        value = getattr(self.param, name)
        self.require(value > 0, f"{name} is {value}, expected a number above 0; set {name} in the solver")

    def not_negative(self, name: str) -> None:
        """Require a field of at least 0."""
        value = getattr(self.param, name)
        self.require(value >= 0, f"{name} is {value:g}, expected 0 or more")


class Fixed(Policy):
    """rate = base_lr"""

    def rate(self, iteration: int, step: int) -> float:
        return self.param.base_lr


class Step(Policy):
    """rate = base_lr gamma^floor(iter / stepsize)"""

    def check(self) -> None:
        self.positive("stepsize")
        self.not_negative("gamma")

    def step_at(self, iteration: int, step: int) -> int:
        return iteration // self.param.stepsize

    def rate(self, iteration: int, step: int) -> float:
        return self.param.base_lr * _power(self.param.gamma, step)


class Exp(Policy):
    """rate = base_lr gamma^iter"""

    def check(self) -> None:
        self.not_negative("gamma")

    def rate(self, iteration: int, step: int) -> float:
        return self.param.base_lr * _power(self.param.gamma, iteration)


class Inv(Policy):
    """rate = base_lr (1 + gamma iter)^-power"""

    def check(self) -> None:
        self.not_negative("gamma")

    def rate(self, iteration: int, step: int) -> float:
        return self.param.base_lr * _power(1 + self.param.gamma * iteration, -self.param.power)


class MultiStep(Policy):
    """rate = base_lr gamma^(stepvalues reached)

    At most one step is taken an iteration, so a run that starts late catches up one by one.
    Source: BVLC sgd_solver.cpp.
    """

    def check(self) -> None:
        self.not_negative("gamma")

    def step_at(self, iteration: int, step: int) -> int:
        values = self.param.stepvalue
        return step + 1 if step < len(values) and iteration >= values[step] else step

    def rate(self, iteration: int, step: int) -> float:
        return self.param.base_lr * _power(self.param.gamma, step)


class Poly(Policy):
    """rate = base_lr (1 - iter / max_iter)^power"""

    def check(self) -> None:
        self.positive("max_iter")

    def rate(self, iteration: int, step: int) -> float:
        return self.param.base_lr * _power(1 - iteration / self.param.max_iter, self.param.power)


class Sigmoid(Policy):
    """rate = base_lr / (1 + exp(-gamma (iter - stepsize)))"""

    def check(self) -> None:
        self.positive("stepsize")
        self.not_negative("gamma")

    def rate(self, iteration: int, step: int) -> float:
        with np.errstate(over="ignore"):
            return self.param.base_lr / float(1 + np.exp(-self.param.gamma * (iteration - self.param.stepsize)))


def policy_class(name: str) -> type[Policy]:
    """The policy of that name, or a `SolverError` with the nearest known one."""
    known = f"(known policies: {', '.join(policy_names())})"
    if not name:
        raise SolverError(f'the solver names no lr_policy; write for example lr_policy: "fixed" {known}')
    if name not in _REGISTRY:
        raise SolverError(f'unknown learning rate policy "{name}"{did_you_mean(name, _REGISTRY)} {known}')
    return _REGISTRY[name]


def policy_names() -> list[str]:
    """The names of all policies, sorted."""
    return sorted(_REGISTRY)


def _power(base: float, exponent: float) -> float:
    """As C's pow: no error, but infinite or not a number."""
    with np.errstate(all="ignore"):
        return float(np.float64(base) ** exponent)
