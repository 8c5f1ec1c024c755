"""Runs the package's update rules on a surface, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from caffe.errors import ArgumentError, CaffeError, did_you_mean
from caffe.proto import caffe_pb2
from caffe.race.surfaces import Surface
from caffe.solver.rules import Update, rule_class, rule_types

__all__ = ["RACERS", "Noise", "Path", "Racer", "best_rate", "race", "racers", "steps_to_minimum"]

_FAR = 1e6
_RATES = tuple(float(f"{10 ** (k / 3):.2g}") for k in range(-12, 4))


@dataclass(frozen=True)
class Racer:
    """An update rule with its settings. `rate` is its default learning rate."""

    name: str
    type: str
    rate: float
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def follows(self) -> bool:
        """Whether the size of a step is proportional to the gradient."""
        return self.type in ("SGD", "Nesterov")

    def pace(self, surface: Surface) -> float:
        """Return the default rate on a surface."""
        return self.rate * (surface.pace if self.follows else 1.0)

    def parameters(self, rate: float) -> Any:
        """Return the SolverParameter of the rule."""
        return caffe_pb2.SolverParameter(type=self.type, base_lr=rate, lr_policy="fixed", **self.settings)


_KNOWN = (
    Racer("SGD", "SGD", 0.02),
    Racer("Momentum", "SGD", 0.02, {"momentum": 0.9}),
    Racer("Nesterov", "Nesterov", 0.02, {"momentum": 0.9}),
    Racer("AdaGrad", "AdaGrad", 0.5),
    Racer("RMSProp", "RMSProp", 0.05),
    Racer("AdaDelta", "AdaDelta", 1.0, {"momentum": 0.95, "delta": 1e-6}),
    Racer("Adam", "Adam", 0.1, {"momentum": 0.9}),
    Racer("AdamW", "AdamW", 0.1, {"momentum": 0.9}),
    Racer("NAdam", "NAdam", 0.1, {"momentum": 0.9}),
    Racer("Lion", "Lion", 0.05, {"momentum": 0.9, "momentum2": 0.99}),
    Racer("Muon", "Muon", 0.1, {"momentum": 0.9}),
    Racer("LARS", "LARS", 10.0, {"momentum": 0.9}),
    Racer("LAMB", "LAMB", 0.05, {"momentum": 0.9}),
    Racer("LBFGS", "LBFGS", 1.0),
    Racer("BFGS", "BFGS", 1.0),
    Racer("Newton", "Newton", 1.0),
)
RACERS = {each.name: each for each in _KNOWN} | {
    name: Racer(name, name, 0.02) for name in rule_types() if name not in {each.type for each in _KNOWN}
}
"""Every update rule of the package; SGD with and without momentum."""


def racers(names: str) -> list[Racer]:
    """Return the racers in a comma-separated list; "all" means all of them."""
    if names == "all":
        return list(RACERS.values())
    for name in (found := [name.strip() for name in names.split(",") if name.strip()]):
        if name not in RACERS:
            raise ArgumentError(f'there is no rule "{name}"{did_you_mean(name, RACERS)}; known: {", ".join(RACERS)}')
    if not found:
        raise ArgumentError(f"no rule is given; known: {', '.join(RACERS)}")
    return [RACERS[name] for name in found]


class Noise:
    """Normal random numbers from a generator that the page also implements: mulberry32 with the Box-Muller
    transform.
    """

    def __init__(self, seed: int) -> None:
        self._state = seed & 0xFFFFFFFF

    def uniform(self) -> float:
        """Return a number above 0 and at most 1."""
        self._state = (self._state + 0x6D2B79F5) & 0xFFFFFFFF
        t = self._state
        t = ((t ^ (t >> 15)) * (t | 1)) & 0xFFFFFFFF
        t ^= (t + (((t ^ (t >> 7)) * (t | 61)) & 0xFFFFFFFF)) & 0xFFFFFFFF
        return (((t ^ (t >> 14)) & 0xFFFFFFFF) + 1) / 4294967296

    def pair(self) -> tuple[float, float]:
        """Return two numbers of mean 0 and variance 1."""
        length, angle = math.sqrt(-2 * math.log(self.uniform())), 2 * math.pi * self.uniform()
        return length * math.cos(angle), length * math.sin(angle)


@dataclass(frozen=True)
class Path:
    """The path of a racer: `points` (steps + 1, 2), and the surface's `values` (steps + 1,) there."""

    racer: Racer
    rate: float
    points: np.ndarray
    values: np.ndarray


class _SurfaceNet:
    """The interface of a net that an update rule needs: one blob with two numbers, its loss and its gradient."""

    def __init__(self, surface: Surface, start: Sequence[float], noise: float, seed: int) -> None:
        self.surface, self.noise, self.random = surface, noise, Noise(seed)
        self.tensor = torch.tensor(list(start), dtype=torch.float64).requires_grad_()
        self.tensor.grad = torch.zeros(2, dtype=torch.float64)
        self.learnable = [SimpleNamespace(tensor=self.tensor, lr_mult=1.0, layer="point")]
        self.layers: list[Any] = []

    def clear_param_diffs(self) -> None:
        assert self.tensor.grad is not None
        self.tensor.grad.zero_()

    def forward_backward(self) -> float:
        x, y = self.tensor.tolist()
        gradient = torch.tensor(self.surface.gradient(x, y), dtype=torch.float64)
        if self.noise:
            gradient += self.noise * torch.tensor(self.random.pair(), dtype=torch.float64)
        assert self.tensor.grad is not None
        self.tensor.grad += gradient
        return float(self.surface.value(x, y))


def race(
    racer: Racer,
    surface: Surface,
    steps: int,
    rate: float | None = None,
    start: Sequence[float] | None = None,
    noise: float | None = None,
    seed: int = 1,
) -> Path:
    """Compute the path of a racer: `steps` updates of its rule in float64. The path ends early if the racer diverges.

    Noise with this standard deviation (default: that of the surface) is added to the gradients, except for rules with a
    line search, which cannot handle it.
    """
    rate = racer.pace(surface) if rate is None else rate
    param = racer.parameters(rate)
    rule = rule_class(racer.type)(param)
    searches = hasattr(rule, "evaluate")
    sigma = 0.0 if searches else surface.noise if noise is None else noise
    net = _SurfaceNet(surface, surface.start if start is None else start, sigma, seed)
    if searches:
        rule.bind(net)  # type: ignore[arg-type]
    history = [torch.zeros(2, dtype=torch.float64) for _ in range(rule.history)]
    points, values = [net.tensor.tolist()], [float(surface.value(*net.tensor.tolist()))]
    with torch.no_grad(), np.errstate(all="ignore"):
        for t in range(1, steps + 1):
            net.clear_param_diffs()
            net.forward_backward()
            try:
                rule.apply([Update(net.tensor.data, net.tensor.grad, history, param.base_lr, 0.0)], t, 1.0)  # type: ignore[arg-type]
            except CaffeError:  # the line search found no lower value
                break
            points.append(net.tensor.tolist())
            if not all(math.isfinite(each) and abs(each) < _FAR for each in points[-1]):
                points.pop()
                break
            values.append(float(surface.value(*points[-1])))
    return Path(racer, rate, np.array(points), np.array(values))


def steps_to_minimum(racer: Racer, surface: Surface, rate: float, steps: int, share: float = 0.01) -> int | None:
    """Return the step after which the height above the minimum stays below this fraction of the start height, or
    None.
    """
    goal = surface.minimum + share * (float(surface.value(*surface.start)) - surface.minimum)
    path = race(racer, surface, steps, rate)
    above = np.flatnonzero(~(path.values <= goal))
    found = int(above[-1]) + 1 if len(above) else 0
    ended = len(path.values) <= steps and not hasattr(rule_class(racer.type), "evaluate")  # diverged
    return found if found < len(path.values) and not ended else None


def best_rate(racer: Racer, surface: Surface, steps: int = 500) -> tuple[int, float] | None:
    """Return the smallest number of steps to the minimum over rates from 0.0001 to 10, and that rate; None if none
    reaches it.
    """
    best: tuple[int, float] | None = None
    rates = (1.0,) if racer.type in ("LBFGS", "BFGS", "Newton") else _RATES
    for rate in rates:
        found = steps_to_minimum(racer, surface, rate, steps)
        if found is not None and (best is None or found < best[0]):
            best = found, rate
    return best
