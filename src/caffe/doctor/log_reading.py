"""Findings from the log of a finished run, of this package or of Caffe."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from caffe import train_log
from caffe.doctor.curves import UNDERFLOW, first_broken, flat_share, grown, least_test_loss, stuck
from caffe.doctor.finding import Finding, Severity
from caffe.errors import FileError
from caffe.proto import files

__all__ = ["read_log"]

_HEADS = ("NumIters", "Seconds", "LearningRate")
_STALL = 5.0


class _Log(NamedTuple):
    path: str
    lines: list[str]
    train: list[dict[str, float]]
    test: list[dict[str, float]]
    losses: np.ndarray
    iterations: np.ndarray

    def place(self, iteration: float) -> str:
        """Return `file:line` of the line that reports an iteration."""
        wanted = re.compile(rf"Iteration {int(iteration)}\b")
        line = next((number for number, text in enumerate(self.lines, 1) if wanted.search(text)), 0)
        return f"{self.path}:{line}" if line else self.path


def read_log(path: str | Path) -> list[Finding]:
    """Return the findings of a training log, most important first.

    Raises FileError for a file without training lines.
    """
    tables = train_log.read(path)
    lines = files.lines(path, "log")
    column = next((name for row in tables.train for name in row if name not in _HEADS), "")
    rows = [row for row in tables.train if column in row]
    if not rows:
        fact = "contains no line with a training loss ('Train net output #0: loss = ...')"
        raise FileError(f"{path}: {fact}; give a log of `caffe train`")
    losses = np.array([row[column] for row in rows])
    iterations = np.array([row["NumIters"] for row in rows])
    log = _Log(str(path), lines, rows, tables.test, losses, iterations)
    found = [finding for check in _CHECKS for finding in check(log)]
    return sorted(found, key=lambda finding: -finding.severity)


def _diverged(log: _Log) -> Iterator[Finding]:
    bad = first_broken(log.losses)
    if bad is not None:
        at = log.iterations[bad]
        before = log.losses[:bad][-1:]
        yield Finding(
            "diverges",
            Severity.ERROR,
            f"the loss is NaN or infinite from iteration {at:.0f} on",
            "lower base_lr, or clip_gradients; caffe doctor on the solver finds the cause",
            f"the loss before was {before[0]:.4g}" if len(before) else "from the first line on",
            place=log.place(at),
        )
        return
    if stuck(log.losses, min(3, len(log.losses))):
        at = log.iterations[np.flatnonzero(np.isclose(log.losses, UNDERFLOW, rtol=1e-3))[0]]
        yield Finding(
            "loss-stuck-at-87.3",
            Severity.ERROR,
            f"the loss stays at {UNDERFLOW} from iteration {at:.0f} on: the correct class has a probability of 0",
            "lower base_lr, or scale the input down",
            "87.3365 is -ln of the smallest float32",
            place=log.place(at),
        )
    elif grown(log.losses, log.losses[0]):
        yield Finding(
            "diverges",
            Severity.ERROR,
            f"the loss has grown from {log.losses[0]:.4g} to {log.losses[-1]:.4g}",
            "lower base_lr",
            place=log.place(log.iterations[-1]),
        )


def _flat(log: _Log) -> Iterator[Finding]:
    losses = log.losses[np.isfinite(log.losses)]
    if len(losses) < 8 or np.isclose(losses[-1], UNDERFLOW, rtol=1e-3) or len(losses) < len(log.losses):
        return
    share = flat_share(losses)
    if share is not None:
        end = losses[-max(1, len(losses) // 4) :].mean()
        yield Finding(
            "nothing-learns",
            Severity.WARNING,
            f"the loss has stayed at {end:.4g} from start to end",
            "caffe doctor on the solver tries rates, fillers and input scales",
            f"{100 * share:.1f} % of change in {log.iterations[-1]:.0f} iterations",
            place=log.place(log.iterations[-1]),
        )


def _overfits(log: _Log) -> Iterator[Finding]:
    column = next((name for row in log.test for name in row if "loss" in name.lower()), "")
    rows = [row for row in log.test if column in row and math.isfinite(row[column])]
    losses = np.array([row[column] for row in rows])
    best = least_test_loss(losses, log.losses)
    if best is not None:
        at = rows[best]["NumIters"]
        yield Finding(
            "overfits",
            Severity.WARNING,
            f"the test loss is smallest at iteration {at:.0f} ({losses[best]:.4g}) and grows to {losses[-1]:.4g}, "
            "while the training loss falls",
            f"use the snapshot of about iteration {at:.0f}; more data, weight decay or dropout",
            f"{100 * (losses[-1] / losses[best] - 1):.0f} % above its smallest value",
            place=log.place(at),
        )


def _stepless(log: _Log) -> Iterator[Finding]:
    policy = next((m.group(1) for line in log.lines if (m := re.search(r'lr_policy: "(\w+)"', line))), "")
    rates = {row["LearningRate"] for row in log.train if math.isfinite(row["LearningRate"])}
    if policy in ("step", "multistep", "plateau") and len(rates) == 1 and len(log.train) > 4:
        yield Finding(
            "schedule",
            Severity.NOTE if policy == "plateau" else Severity.WARNING,
            f'lr_policy "{policy}" has never changed the rate: {rates.pop():g} in {log.iterations[-1]:.0f} iterations',
            "lower stepsize or stepvalue below the number of iterations",
            place=log.path,
        )


def _stalls(log: _Log) -> Iterator[Finding]:
    seconds = np.array([row["Seconds"] for row in log.train])
    spans = np.diff(seconds) / np.maximum(1, np.diff(log.iterations))
    spans = spans[np.isfinite(spans) & (spans >= 0)]
    if len(spans) < 8:
        return
    usual = float(np.median(spans))
    slow = spans > _STALL * max(usual, 1e-6)
    lost = float(spans[slow].sum() / spans.sum()) if spans.sum() else 0.0
    if usual > 0 and slow.sum() >= 3 and lost > 0.2:
        at = log.iterations[1:][np.flatnonzero(slow)[0]]
        yield Finding(
            "input-starved",
            Severity.WARNING,
            f"{int(slow.sum())} of {len(spans)} intervals took more than {_STALL:.0f} times as long as usual",
            "the data layer may wait for the disk: data_param.prefetch, a faster disk, smaller images",
            f"{100 * lost:.0f} % of the time, usually {1000 * usual:.3g} ms per iteration",
            place=log.place(at),
        )


_CHECKS: tuple[Callable[[_Log], Iterator[Finding]], ...] = (_diverged, _flat, _overfits, _stepless, _stalls)
