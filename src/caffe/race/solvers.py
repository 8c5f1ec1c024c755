"""The race on a user's own solver: the same net, data and seed with several update rules."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from caffe.doctor.case import Case, close, quiet
from caffe.doctor.changes import Change, SetField
from caffe.errors import CaffeError
from caffe.race.paths import Racer
from caffe.solver import Watcher

__all__ = ["Lap", "draw", "laps"]

_CLEARED = ("momentum", "momentum2", "delta", "rms_decay")
_OWN_RATE = {"SGD": 0.01, "Momentum": 0.01, "Nesterov": 0.01, "AdaGrad": 0.01, "RMSProp": 0.001, "AdaDelta": 1.0}
_OWN_RATE |= {"Adam": 0.001, "AdamW": 0.001, "NAdam": 0.001, "Lion": 0.0001, "Muon": 0.001, "LARS": 1.0, "LAMB": 0.01}


@dataclass
class Lap:
    """The result of a rule: the loss of each step, and the seconds since the start of the first step."""

    name: str
    rate: float
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def final(self) -> float:
        """The mean loss of the last tenth of the steps; infinite if the run diverged."""
        if self.error or not self.losses or not math.isfinite(self.losses[-1]):
            return math.inf
        return float(np.mean(self.losses[-max(1, len(self.losses) // 10) :]))


def laps(
    path: str, racers: Sequence[Racer], steps: int, rates: Sequence[float], tell: Callable[[Lap], None]
) -> list[Lap]:
    """Run each rule with each rate. Without `rates`, a rule uses its default rate, and the solver's rule that of the
    file.

    All other settings are those of the solver.
    """
    case, found = Case(path), []
    for racer in racers:
        for rate in rates or [_rate(case, racer)]:
            lap = _lap(case, racer, rate, steps)
            found.append(lap)
            tell(lap)
    return found


def _rate(case: Case, racer: Racer) -> float:
    same = racer.type == case.param.type and racer.settings.get("momentum", 0.0) == round(case.param.momentum, 6)
    return float(case.param.base_lr) if same else _OWN_RATE.get(racer.name, racer.rate)


def _lap(case: Case, racer: Racer, rate: float, steps: int) -> Lap:
    values = dict.fromkeys(_CLEARED, "") | {name: repr(value) for name, value in racer.settings.items()}
    values |= {"type": f'"{racer.type}"', "base_lr": repr(rate)}
    change = Change(racer.name, tuple(SetField(None, name, value) for name, value in values.items()))
    lap = Lap(racer.name, rate)
    begin = 0.0

    class Listener(Watcher):
        def iterated(self, solver: Any, iteration: int, loss: float, rate: float) -> None:
            lap.losses.append(loss)
            lap.seconds.append(time.perf_counter() - begin)
            if not math.isfinite(loss):
                solver.request("stop")

    with quiet():
        try:
            solver = case.solver(change, int(case.param.random_seed) if case.param.random_seed >= 0 else 1)
        except CaffeError as error:
            lap.error = str(error)
            return lap
        try:
            solver.net.slim()
            solver.watchers.append(Listener())
            begin = time.perf_counter()
            solver.step(steps)
        except CaffeError as error:
            lap.error = str(error)
        finally:
            close(solver)
    return lap


def draw(found: Sequence[Lap], target: str) -> None:
    """Draw the smoothed losses over the iterations and over the seconds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for index, lap in enumerate(each for each in found if each.losses):
        weight = max(1, len(lap.losses) // 20)
        padded = np.concatenate([np.full(weight - 1, lap.losses[0]), lap.losses])
        smooth = np.convolve(padded, np.ones(weight) / weight, "valid")
        style: dict[str, Any] = {"color": f"C{index % 10}", "linestyle": "-" if index < 10 else "--"}
        left.plot(smooth, label=f"{lap.name} ({lap.rate:g})", **style)
        right.plot(lap.seconds, smooth, **style)
    for axis, name in ((left, "iteration"), (right, "seconds")):
        axis.set_xlabel(name)
        axis.grid(alpha=0.3)
    first = [lap.losses[0] for lap in found if lap.losses and math.isfinite(lap.losses[0])]
    left.set_ylim(0, 1.5 * max(first, default=1.0))
    left.set_ylabel("training loss, smoothed")
    left.legend(fontsize=8, title="rule (rate)")
    figure.savefig(target, dpi=110)
