"""Update rules of forks: SGD with a rate for each blob, which settings select beside `type: "SGD"`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from caffe.errors import SolverError
from caffe.net import Net
from caffe.solver.rules import SGD, Rule, rule_class
from caffe.solver.update import Update

__all__ = ["IntelLocalRate", "Larc", "make_rule"]

_MEMORY = 0.95
"""The fraction of the average correlation of larc_turbo that one update keeps."""


class _LocalRate(SGD, abstract=True):
    """SGD in which `local` returns the rate of each blob from the norms of its weights and of its gradient.

    The norms are those before weight decay. A blob with lr_mult 0 stays fixed; other values of lr_mult have no effect,
    as in the forks.
    """

    whole = True
    norms = True
    kernel = None

    def local(self, rate: float, part: Update, weights: float, gradient: float) -> float:
        """Return the rate of a blob whose norms are `weights` and `gradient`. `rate` is the rate of the solver."""
        raise NotImplementedError(type(self).__name__)

    def update(self, part: Update, t: int) -> None:
        if part.rate and part.multiplier > 0:
            rate = self.local(part.rate / part.multiplier, part, part.norm(part.data), part.norm(part.diff))
            part = replace(part, rate=rate)
        super().update(part, t)


class IntelLocalRate(_LocalRate, abstract=True):
    """SGD with `local_lr_auto` of Intel's Caffe.

        r = local_gw_ratio |w| / (|g| + weight_decay |w|), or 1 where |w| or |g| is 0
        v <- mu v + rate r (g + decay w)
        w <- w - v

    The weight_decay in r is that of the solver, also for blobs with another decay_mult.
    Source: Intel's Caffe, sgd_solver.cpp (its fused update); You et al., arXiv:1708.03888.
    """

    def local(self, rate: float, part: Update, weights: float, gradient: float) -> float:
        if not (weights > 0 and gradient > 0):
            return rate
        return rate * self.param.local_gw_ratio * weights / (gradient + self.param.weight_decay * weights)


class Larc(_LocalRate, abstract=True):
    """SGD with `larc` of NVCaffe 0.17.

        r = (1 - mu) larc_eta |w| / |g|, or 1 where |w| or |g| is 0
        v <- mu v + s (g + decay w)         s = rate r ("scale") or min(rate, r) ("clip")
        w <- w - v

    With larc_turbo, 0.9 c is subtracted from r, where c <- 0.95 c + 0.05 cos(g, v) starts at 0. Snapshots store c,
    which NVCaffe does not.
    Source: NVCaffe, sgd_solver.cpp.
    """

    def __init__(self, param: Any) -> None:
        self._correlation: list[float] = []
        self._index = 0
        super().__init__(param)

    def bind(self, net: Net) -> None:
        self._correlation = [0.0] * len(net.learnable)

    def check(self) -> None:
        policy, eta = self.param.larc_policy, self.param.larc_eta
        self.require(policy in ("scale", "clip"), f'larc_policy is "{policy}", expected "scale" or "clip"')
        self.require(eta > 0, f"larc_eta is {eta:g}, expected a number above 0")

    def local(self, rate: float, part: Update, weights: float, gradient: float) -> float:
        ratio = 1.0
        if weights > 0 and gradient > 0:
            ratio = (1 - self.param.momentum) * self.param.larc_eta * weights / gradient
        if self.param.larc_turbo:
            ratio -= 0.9 * self._correlated(_cosine(part, gradient))
        return min(rate, ratio) if self.param.larc_policy == "clip" else rate * ratio

    def _correlated(self, cosine: float) -> float:
        """Return the running average of the blob's correlation, with this update's value included."""
        value = _MEMORY * self._correlation[self._index] + (1 - _MEMORY) * cosine
        self._correlation[self._index] = value
        return value

    def apply(self, updates: Iterable[Update], t: int, scale: float) -> None:
        for self._index, update in enumerate(updates):
            if self._index == len(self._correlation):
                self._correlation.append(0.0)
            super().apply([update], t, scale)

    def memory(self) -> dict[str, Tensor]:
        used = self.param.larc_turbo and self._correlation
        return {"correlation": torch.tensor(self._correlation, dtype=torch.float64)} if used else {}

    def check_memory(self, memory: Mapping[str, Tensor]) -> None:
        values = memory.get("correlation")
        if values is not None and (values.numel() != len(self._correlation) or not bool((values.abs() <= 1.001).all())):
            raise SolverError(
                f"correlation of the rule's memory is {values.flatten().tolist()}, expected {len(self._correlation)} "
                "values from -1 to 1"
            )

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        values = memory.get("correlation")
        known = [0.0] * len(self._correlation) if values is None else values.flatten().tolist()
        self._correlation = [float(value) for value in known]


def _cosine(part: Update, gradient: float) -> float:
    """The cosine of the angle between gradient and history, from norms only; 0 if one of them is 0."""
    (history,) = part.history
    moved = part.norm(history)
    if not (gradient > 0 and moved > 0):
        return 0.0
    g, v = part.diff / gradient, history / moved
    return (part.norm(g + v) ** 2 - part.norm(g - v) ** 2) / 4


def make_rule(param: Any) -> Rule:
    """Create the update rule of a SolverParameter. Raises a `SolverError` for an unknown type."""
    for setting, kind in (("larc", Larc), ("local_lr_auto", IntelLocalRate)):
        if getattr(param, setting):
            if param.type != "SGD" or (param.larc and param.local_lr_auto):
                fact = "local_lr_auto" if param.type == "SGD" else f'type: "{param.type}"'
                raise SolverError(f'{setting} is set beside {fact}; expected with type: "SGD" only; remove one of them')
            return kind(param)
    return rule_class(param.type)(param)
