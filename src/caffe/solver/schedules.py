"""Learning rate policies that Caffe does not have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from caffe import log
from caffe.net import Net
from caffe.solver.policy import Policy, Schedule

__all__ = [
    "CosineAnnealing",
    "Exponential",
    "InverseTime",
    "MultiFixed",
    "OneCycle",
    "Plateau",
    "check_rise",
    "one_cycle",
]


class InverseTime(Policy):
    """rate = base_lr / (1 + gamma iter)"""

    def check(self) -> None:
        self.positive("gamma")

    def rate(self, iteration: int, step: int) -> float:
        return self.param.base_lr / (1 + self.param.gamma * iteration)


class Exponential(Policy):
    """rate = base_lr exp(-gamma iter)"""

    def check(self) -> None:
        self.positive("gamma")

    def rate(self, iteration: int, step: int) -> float:
        return self.param.base_lr * math.exp(-self.param.gamma * iteration)


class CosineAnnealing(Policy):
    """rate = min_lr + (base_lr - min_lr) (1 + cos(pi t / T)) / 2, where t is the number of iterations since the last
    restart

    The first period T is `cycle`; each restart multiplies T by `cycle_mult`. Without `cycle`, T is max_iter and there
    is no restart.
    Source: Loshchilov & Hutter, arXiv:1608.03983.
    """

    options = ("min_lr", "cycle", "cycle_mult")

    def check(self) -> None:
        low, high, mult = self.param.min_lr, self.param.base_lr, self.param.cycle_mult
        self.positive("cycle" if self.param.HasField("cycle") else "max_iter")
        self.require(0 <= low <= high, f"min_lr is {low:g}, expected at least 0 and at most base_lr, {high:g}")
        self.require(mult >= 1, f"cycle_mult is {mult:g}, expected 1 or more")
        given = self.param.HasField("cycle") or not self.param.HasField("cycle_mult")
        self.require(given, "cycle_mult is set without cycle; set cycle, the iterations to the first restart")

    def rate(self, iteration: int, step: int) -> float:
        t, length = float(iteration), float(self.param.cycle)
        if not length:
            length = self.param.max_iter
            t = min(t, length)
        elif self.param.cycle_mult == 1:
            t %= length
        else:
            while t >= length:
                t -= length
                length *= self.param.cycle_mult
        return _between(self.param.base_lr, self.param.min_lr, t / length)


class OneCycle(Policy):
    """Rises from start_fraction * base_lr to base_lr, then falls to end_fraction * base_lr at max_iter, both along a
    cosine.

    `rise` is the fraction of the iterations in which the rate rises. momentum_policy "onecycle" moves the momentum in
    the opposite direction at the same time.
    Source: Smith & Topin, arXiv:1708.07120; the curve is that of torch.optim's OneCycleLR.
    """

    options = ("rise", "start_fraction", "end_fraction")

    def check(self) -> None:
        check_rise(self)
        self.positive("start_fraction")
        self.not_negative("end_fraction")

    def rate(self, iteration: int, step: int) -> float:
        start, end = self.param.start_fraction, self.param.end_fraction
        return self.param.base_lr * one_cycle(self.param, iteration, start, 1.0, end)


class MultiFixed(Policy):
    """rate = stagelr of the current stage. A stage lasts up to its stageiter; after all stages the last stagelr stays.

    base_lr is not used.
    Source: the YOLO forks of yeahkun and eric612, and Intel's Caffe: sgd_solver.cpp.
    """

    options = ("stagelr", "stageiter")

    def check(self) -> None:
        rates, ends = len(self.param.stagelr), len(self.param.stageiter)
        self.require(
            rates > 0, "stagelr is not set; write a stagelr, and a stageiter up to which it holds, for each stage"
        )
        self.require(
            rates == ends, f"stagelr is given {rates} times and stageiter {ends} times, expected one for each stage"
        )

    def rate(self, iteration: int, step: int) -> float:
        stages = zip(self.param.stagelr, self.param.stageiter, strict=True)
        return next((rate for rate, end in stages if iteration <= end), self.param.stagelr[-1])


class Plateau(Policy):
    """rate = max(min_lr, base_lr gamma^step), where step counts how often the loss stopped falling

    With `patience`, the loss is that of the first test net. A step is counted after more than `patience` consecutive
    tests that are not below the best loss so far by the fraction `threshold` of it. The default of gamma is 0.5.

    With `plateau_winsize` (SSD's and Intel's Caffe), the loss is the training loss, averaged over `average_loss`
    iterations. Step k ends as soon as plateau_winsize[k] iterations have passed since the least loss so far, or since
    step k began. The last step does not end.
    """

    options = ("patience", "threshold", "min_lr", "plateau_winsize")

    def check(self) -> None:
        param, windows = self.param, self.param.plateau_winsize
        self.best, self.waited, self.steps = math.inf, 0, 0
        if windows:
            both = param.HasField("patience") or param.HasField("threshold")
            self.require(not both, "plateau_winsize is set beside patience or threshold; keep one of them")
            self.require(min(windows) > 0, f"plateau_winsize is {list(windows)}, expected numbers above 0")
            self.require(param.HasField("gamma"), "gamma is not set; it is the factor of a step, for example 0.1")
            return
        tests = len(param.test_iter) > 0 and param.test_interval > 0
        self.require(tests, "follows the loss of the first test net; set test_iter and test_interval in the solver")
        self.require(param.HasField("patience"), "patience is not set; it is the number of tests to wait for progress")
        self.not_negative("patience", "threshold", "min_lr")
        self.require(0 < self._factor < 1, f"gamma is {self._factor:g}, expected above 0 and below 1")

    @property
    def _factor(self) -> float:
        return self.param.gamma if self.param.HasField("gamma") else 0.5

    def step_at(self, iteration: int, step: int) -> int:
        return self.steps

    def rate(self, iteration: int, step: int) -> float:
        return max(self.param.min_lr, self.param.base_lr * self._factor**step)

    def trained(self, iteration: int, loss: float) -> None:
        windows = self.param.plateau_winsize
        if not windows:
            return
        if loss < self.best:
            self.best, self.waited = loss, 0
        elif iteration:
            self.waited += 1
        if self.steps < len(windows) and self.waited >= windows[self.steps]:
            self.waited = 0
            self.steps += 1
            log.info("sgd_solver.cpp", f"Plateau Status: Iteration {iteration}, step = {self.steps}")

    def tested(self, net: Net, loss: float) -> None:
        if self.param.plateau_winsize:
            return
        self.require(any(net.blob_loss_weights.values()), "the first test net has no loss to follow; add a loss layer")
        goal = self.best if self.best == math.inf else self.best - self.param.threshold * abs(self.best)
        if loss < goal:
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > self.param.patience:
            self.waited = 0
            self.steps += 1

    def memory(self) -> dict[str, float]:
        return {"best": self.best, "waited": self.waited, "steps": self.steps}

    def check_memory(self, memory: Mapping[str, float]) -> None:
        super().check_memory(memory)
        for name in ("waited", "steps"):
            value = memory.get(name, 0.0)
            whole = 0 <= value < 1 << 31 and value == int(value)
            self.require(whole, f"{name} of its memory is {value:g}, expected a whole number of at least 0")
        self.require(not math.isnan(memory.get("best", math.inf)), "best of its memory is nan, expected a loss")

    def recall(self, step: int, memory: Mapping[str, float]) -> None:
        self.best, self.waited = memory.get("best", math.inf), int(memory.get("waited", 0))
        self.steps = int(memory.get("steps", step))


def check_rise(schedule: Schedule) -> None:
    """Raise a `SolverError` unless a cycle has at least one rising and one falling iteration."""
    schedule.positive("max_iter")
    rise, last = schedule.param.rise, schedule.param.max_iter
    schedule.require(
        1 < rise * last < last, f"rise is {rise:g}, expected so that max_iter, {last}, has iterations on both sides"
    )


def one_cycle(param: Any, iteration: int, start: float, peak: float, end: float) -> float:
    """Interpolate along cosines: from `start` to `peak` in the first `rise` of the iterations, then from `peak` to
    `end`.
    """
    top, last = param.rise * param.max_iter - 1, param.max_iter - 1
    if iteration <= top:
        return _between(start, peak, iteration / top)
    return _between(peak, end, min(1.0, (iteration - top) / (last - top)))


def _between(start: float, end: float, share: float) -> float:
    """Interpolate from start to end along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
