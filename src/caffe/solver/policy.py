"""Learning rate policies: the rate as a function of the iteration.

A policy is registered by defining its class; its name in the prototxt is the class name in lower case.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from caffe.errors import SolverError
from caffe.net import Net
from caffe.proto.forks import foreign_value
from caffe.registry import Registry

__all__ = ["Policy", "Schedule", "policy_class", "policy_names", "weight_decay"]


class Schedule:
    """Base class of values that change with the iteration. Each family of schedules has its own `kind` and registry."""

    kind: ClassVar[str]
    registry: ClassVar[Registry[type[Schedule]]]
    options: ClassVar[tuple[str, ...]] = ()
    """The solver fields, numbered from 20000, that the schedule uses."""

    def __init_subclass__(cls, kind: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if kind:
            cls.kind, cls.registry = kind, Registry(kind, SolverError, "policies")
            return
        cls.registry.add(cls.__name__.lower(), cls)

    def __init__(self, param: Any) -> None:
        """`param` is the SolverParameter. It is read in every iteration, so later changes take effect."""
        self.param = param
        self.check()

    def check(self) -> None:
        """Raise a `SolverError` for settings that the schedule cannot use."""

    def require(self, condition: bool, fact: str) -> None:
        """Raise a SolverError with the text `fact` unless `condition` is true."""
        if not condition:
            raise SolverError(f'{self.kind} "{type(self).__name__.lower()}": {fact}')

    def positive(self, *names: str) -> None:
        """Require these fields to be above 0."""
        for name in names:
            value = getattr(self.param, name)
            self.require(value > 0, f"{name} is {value}, expected a number above 0; set {name} in the solver")

    def not_negative(self, *names: str) -> None:
        """Require these fields to be at least 0."""
        for name in names:
            value = getattr(self.param, name)
            self.require(value >= 0, f"{name} is {value:g}, expected 0 or more")

    def fraction(self, *names: str) -> None:
        """Require these fields to be set, to values of at least 0 and below 1."""
        for name in names:
            value = getattr(self.param, name)
            given = "" if self.param.HasField(name) else " (not set)"
            self.require(0 <= value < 1 and not given, f"{name} is {value:g}{given}, expected at least 0 and below 1")

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of the family's schedules, sorted."""
        return cls.registry.names()

    @classmethod
    def find(cls, name: str) -> Any:
        """Return the class with that name; raises a `SolverError` that suggests the nearest known name."""
        return cls.registry.find(name, foreign_value(name))


class Policy(Schedule, kind="learning rate policy"):
    """A learning rate policy, selected in the prototxt by `lr_policy`.

    Subclasses implement `rate` and, if they count steps, `step_at`. Snapshots store the number of steps and the result
    of `memory`. With `warmup_iter`, the rate of any policy is multiplied by a factor that rises linearly from
    `warmup_start` and reaches 1 at iteration `warmup_iter` - 1. Two forks of Caffe have another warm-up, which rises to
    base_lr independently of the policy: see `fork_start`.
    """

    def step_at(self, iteration: int, step: int) -> int:
        """Return the number of steps at `iteration`, given the number `step` of the previous iteration."""
        return step

    def rate(self, iteration: int, step: int) -> float:
        """Return the learning rate at `iteration` after `step` steps."""
        raise NotImplementedError(type(self).__name__)

    def tested(self, net: Net, loss: float) -> None:
        """Called after each run of the first test net, with its mean loss."""

    def trained(self, iteration: int, loss: float) -> None:
        """Called in each iteration before the update, with the mean of the last `average_loss` training losses."""

    def memory(self) -> dict[str, float]:
        """Return the policy's state besides the number of steps, for snapshots."""
        return {}

    def check_memory(self, memory: Mapping[str, float]) -> None:
        """Raise a `SolverError` for a memory that `recall` cannot use. Changes nothing. The default compares the names.

        A state of another policy, or one written by Caffe, has no memory of this policy.
        """
        missing = self.memory().keys() - memory.keys()
        known = self.memory().keys() & memory.keys()
        self.require(not (missing and known), f"its memory has {sorted(known)} but not {sorted(missing)}")

    def recall(self, step: int, memory: Mapping[str, float]) -> None:
        """Restore the result of `memory`. If the snapshot has no memory, only the number of steps is restored."""

    def at(self, iteration: int, step: int) -> float:
        """Return `rate` with the warm-up and the limit `min_lr` applied. Raises SolverError if it is not finite."""
        rate = fork_start(self.param, iteration)
        rate = self.rate(iteration, step) if rate is None else rate
        if not math.isfinite(rate):
            self.require(False, f"gives a rate of {rate:g} at iteration {iteration} (max_iter {self.param.max_iter})")
        if iteration + 1 < self.param.warmup_iter and not self.param.HasField("warmup_start_lr"):
            start = self.param.warmup_start
            rate *= start + (1 - start) * (iteration + 1) / self.param.warmup_iter
        return max(rate, self.param.min_lr) if self.param.min_lr else rate


def fork_start(param: Any, iteration: int) -> float | None:
    """Return the rate during the warm-up of Intel's Caffe or NVCaffe; None after it, and for other solvers.

        warmup_start_lr + (base_lr - warmup_start_lr) iter / warmup_iter          iter < warmup_iter (Intel)
        rampup_lr + (base_lr - rampup_lr) (iter / rampup_interval)^2               iter < rampup_interval (NVCaffe 0.17)

    Source: their sgd_solver.cpp.
    """
    if iteration < param.rampup_interval:
        return param.rampup_lr + (param.base_lr - param.rampup_lr) * (iteration / param.rampup_interval) ** 2
    if param.HasField("warmup_start_lr") and iteration < param.warmup_iter:
        return param.warmup_start_lr + (param.base_lr - param.warmup_start_lr) * iteration / param.warmup_iter
    return None


def weight_decay(param: Any, iteration: int) -> float:
    """Return the weight decay of the update of `iteration`, before each blob's decay_mult.

    It is constant unless weight_decay_policy is "poly":

        weight_decay + (max_weight_decay - weight_decay) (iter / max_iter)^weight_decay_power

    Source: NVCaffe 0.17, sgd_solver.cpp.
    """
    first: float = param.weight_decay
    if param.weight_decay_policy != "poly":
        return first
    share = min(1.0, iteration / param.max_iter) ** param.weight_decay_power
    return first + (param.max_weight_decay - first) * share


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
    """rate = base_lr gamma^(number of stepvalues reached)

    At most one step is counted per iteration, so a run that starts at a late iteration counts the missed steps one by
    one.
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

    min_lr is a field of NVCaffe; its default is 0.
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
    """Return the policy class with that name; raises a `SolverError` that suggests the nearest known name."""
    if not name:
        known = f"(known policies: {', '.join(policy_names())})"
        raise SolverError(f'the solver names no lr_policy; write for example lr_policy: "fixed" {known}')
    return Policy.find(name)


def policy_names() -> list[str]:
    """Return the names of all policies, sorted."""
    return Policy.names()


def _power(base: float, exponent: float) -> float:
    """Compute a power like C's pow: the result can be infinite or NaN, without an error."""
    with np.errstate(all="ignore"):
        return float(np.float64(base) ** exponent)
