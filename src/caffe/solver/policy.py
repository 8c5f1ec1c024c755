"""Learning rate policies: the rate as a function of the iteration.

Defining the class makes the policy known, under its name in lower case.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from caffe.errors import SolverError
from caffe.net import Net
from caffe.proto.forks import foreign_value
from caffe.registry import Registry

__all__ = ["Policy", "Schedule", "policy_class", "policy_names"]


class Schedule:
    """Base of what changes with the iteration; a family of schedules has a `kind` and a registry of its own."""

    kind: ClassVar[str]
    registry: ClassVar[Registry[type[Schedule]]]
    options: ClassVar[tuple[str, ...]] = ()
    """The fields from 20000 up that the schedule reads."""

    def __init_subclass__(cls, kind: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if kind:
            cls.kind, cls.registry = kind, Registry(kind, SolverError, "policies")
            return
        cls.registry.add(cls.__name__.lower(), cls)

    def __init__(self, param: Any) -> None:
        """`param` is the SolverParameter, read anew at every iteration."""
        self.param = param
        self.check()

    def check(self) -> None:
        """Raise a `SolverError` for settings that the schedule cannot work with."""

    def require(self, condition: bool, fact: str) -> None:
        """Raise the error `fact` unless `condition` holds."""
        if not condition:
            raise SolverError(f'{self.kind} "{type(self).__name__.lower()}": {fact}')

    def positive(self, *names: str) -> None:
        """Require fields above 0."""
        for name in names:
            value = getattr(self.param, name)
            self.require(value > 0, f"{name} is {value}, expected a number above 0; set {name} in the solver")

    def not_negative(self, *names: str) -> None:
        """Require fields of at least 0."""
        for name in names:
            value = getattr(self.param, name)
            self.require(value >= 0, f"{name} is {value:g}, expected 0 or more")

    def fraction(self, *names: str) -> None:
        """Require fields that are set, of at least 0 and below 1."""
        for name in names:
            value = getattr(self.param, name)
            given = "" if self.param.HasField(name) else " (not set)"
            self.require(0 <= value < 1 and not given, f"{name} is {value:g}{given}, expected at least 0 and below 1")

    @classmethod
    def names(cls) -> list[str]:
        """The names of the family, sorted."""
        return cls.registry.names()

    @classmethod
    def find(cls, name: str) -> Any:
        """The class of that name in the family, or a `SolverError` with the nearest known one."""
        return cls.registry.find(name, foreign_value(name))


class Policy(Schedule, kind="learning rate policy"):
    """A learning rate policy, named in the prototxt by `lr_policy`.

    A subclass writes `rate` and, where it counts steps, `step_at`. Snapshots keep the number of steps taken, and what
    `memory` returns. With `warmup_iter`, the rate of any policy is multiplied by a factor that rises linearly from
    `warmup_start` to 1, which it has from iteration `warmup_iter` - 1 on. Two forks start in another way, up to base_lr
    whatever the policy: see `fork_start`.
    """

    def step_at(self, iteration: int, step: int) -> int:
        """The number of steps taken at `iteration`, when it was `step` before."""
        return step

    def rate(self, iteration: int, step: int) -> float:
        """The learning rate at `iteration` after `step` steps."""
        raise NotImplementedError(type(self).__name__)

    def tested(self, net: Net, loss: float) -> None:
        """The first test net was run: its mean loss."""

    def memory(self) -> dict[str, float]:
        """What the policy knows beside the number of steps."""
        return {}

    def check_memory(self, memory: Mapping[str, float]) -> None:
        """Raise a `SolverError` for what `recall` cannot take; changes nothing. By default names are compared.

        A state of another policy, or of Caffe, has nothing that `memory` would give.
        """
        missing = self.memory().keys() - memory.keys()
        known = self.memory().keys() & memory.keys()
        self.require(not (missing and known), f"its memory has {sorted(known)} but not {sorted(missing)}")

    def recall(self, step: int, memory: Mapping[str, float]) -> None:
        """Take back what `memory` gave, or, where a file has nothing of it, the number of steps alone."""

    def at(self, iteration: int, step: int) -> float:
        """`rate`, warmed up, and checked to be a number."""
        rate = fork_start(self.param, iteration)
        rate = self.rate(iteration, step) if rate is None else rate
        if not np.isfinite(rate):
            self.require(False, f"gives a rate of {rate:g} at iteration {iteration} (max_iter {self.param.max_iter})")
        if iteration + 1 < self.param.warmup_iter and not self.param.HasField("warmup_start_lr"):
            start = self.param.warmup_start
            rate *= start + (1 - start) * (iteration + 1) / self.param.warmup_iter
        return rate


def fork_start(param: Any, iteration: int) -> float | None:
    """The rate while a solver of Intel's Caffe or of NVCaffe starts; None behind that, and for other solvers.

        warmup_start_lr + (base_lr - warmup_start_lr) iter / warmup_iter          iter < warmup_iter (Intel)
        rampup_lr + (base_lr - rampup_lr) (iter / rampup_interval)^2               iter < rampup_interval (NVCaffe 0.17)

    Source: their sgd_solver.cpp.
    """
    if iteration < param.rampup_interval:
        return param.rampup_lr + (param.base_lr - param.rampup_lr) * (iteration / param.rampup_interval) ** 2
    if param.HasField("warmup_start_lr") and iteration < param.warmup_iter:
        return param.warmup_start_lr + (param.base_lr - param.warmup_start_lr) * iteration / param.warmup_iter
    return None


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
    """rate = min_lr + (base_lr - min_lr) (1 - iter / max_iter)^power

    min_lr, which is 0 unless set, comes from NVCaffe.
    """

    options = ("min_lr",)

    def check(self) -> None:
        self.positive("max_iter")
        low, high = self.param.min_lr, self.param.base_lr
        self.require(
            not low or 0 < low <= high, f"min_lr is {low:g}, expected at least 0 and at most base_lr, {high:g}"
        )

    def rate(self, iteration: int, step: int) -> float:
        share = _power(1 - iteration / self.param.max_iter, self.param.power)
        low = self.param.min_lr
        return low + (self.param.base_lr - low) * share if low else self.param.base_lr * share


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
    if not name:
        known = f"(known policies: {', '.join(policy_names())})"
        raise SolverError(f'the solver names no lr_policy; write for example lr_policy: "fixed" {known}')
    return Policy.find(name)


def policy_names() -> list[str]:
    """The names of all policies, sorted."""
    return Policy.names()


def _power(base: float, exponent: float) -> float:
    """As C's pow: no error, but infinite or not a number."""
    with np.errstate(all="ignore"):
        return float(np.float64(base) ** exponent)
