"""The learning rate range test: one run whose rate grows at each step, and the rates between which the loss falls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from caffe.doctor.changes import Change, SetField
from caffe.doctor.trial import Outcome

__all__ = ["Rates", "growing", "read_rates"]

_BURN, _MEMORY = 0.05, 0.8
_FELL, _LEAST = 0.1, 0.02


@dataclass(frozen=True)
class Rates:
    """The rate and loss (plain and smoothed) of each step, the interval in which the loss falls, and a suggested
    rate.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    low: float
    high: float
    suggested: float
    given: float

    @property
    def text(self) -> str:
        """A short description of the interval."""
        return (
            f"{self.low:.1g} to {self.high:.1g} lower the loss, about {self.suggested:.1g} is suggested; "
            f"base_lr is {self.given:g}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-compatible dict. A loss that is NaN or infinite becomes None."""
        losses = [float(loss) if np.isfinite(loss) else None for loss in self.losses]
        return {
            "low": self.low,
            "high": self.high,
            "suggested": self.suggested,
            "rates": [float(f"{rate:.4g}") for rate in self.rates],
            "losses": losses,
        }


def growing(low: float, high: float, steps: int) -> Change:
    """Create the change that lets the rate grow from `low` to `high`."""
    gamma = (high / low) ** (1 / max(1, steps - 1))
    fields = {"base_lr": f"{low:.9g}", "lr_policy": '"exp"', "gamma": f"{gamma:.9g}"}
    return Change(
        f"base_lr from {low:.1g} to {high:.1g}", tuple(SetField(None, name, text) for name, text in fields.items())
    )


def read_rates(run: Outcome, low: float, high: float, steps: int, given: float) -> Rates | None:
    """Find the interval in which the loss falls. If the loss hardly changes, it is that of updates of the usual size.

    The first steps are ignored, and a median of five removes single spikes. The loss counts as diverged from the step
    after which it stays above its start.
    """
    losses = np.asarray(run.losses, np.float64)
    if len(losses) < 8:
        return None
    rates = low * (high / low) ** (np.arange(len(losses)) / max(1, steps - 1))
    smoothed = _smooth(np.where(np.isfinite(losses), losses, np.inf))
    begin = max(3, int(_BURN * steps))
    start = float(np.median(losses[:begin]))
    best = begin + int(np.argmin(smoothed[begin:]))
    fall = start - float(smoothed[best])
    if not fall > _LEAST * abs(start):
        middle = float(np.sqrt(low * high))
        return Rates(rates, losses, smoothed, middle / 10, middle * 3, middle, given)
    fallen = np.flatnonzero(start - smoothed[: best + 1] > _FELL * fall)
    first = int(fallen[fallen >= begin][0]) if (fallen >= begin).any() else best
    top = float(rates[best]) / 2
    bottom = min(float(rates[first]) / 3, top / 3)
    # the rate at half of the decrease, because momentum delays the effect of a rate by some steps
    half = int(np.flatnonzero(start - smoothed[: best + 1] >= fall / 2)[0])
    suggested = float(np.clip(rates[half] / 3, bottom, top))
    return Rates(rates, losses, smoothed, bottom, top, suggested, given)


def _smooth(losses: np.ndarray) -> np.ndarray:
    """Smooth by medians of five steps, then by an exponential mean that is corrected for the bias of its start."""
    padded = np.concatenate([losses[:1].repeat(2), losses, losses[-1:].repeat(2)])
    medians = np.median(np.stack([padded[shift : shift + len(losses)] for shift in range(5)]), axis=0)
    mean, smoothed = 0.0, np.empty_like(medians)
    for step, loss in enumerate(medians):
        mean = _MEMORY * mean + (1 - _MEMORY) * loss
        smoothed[step] = mean / (1 - _MEMORY ** (step + 1))
    return smoothed
