"""Trials: short training runs with and without a change, with the same steps, seeds and data."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from caffe.doctor.case import Case, close, quiet
from caffe.doctor.changes import Change
from caffe.doctor.head import Head, find_head
from caffe.doctor.view import View
from caffe.errors import CaffeError
from caffe.solver import Watcher

__all__ = ["Outcome", "Trials"]

_BLOWN_UP = 1e6
"""A trial ends if the loss reaches this multiple of the first loss."""
_PROGRESS = 0.7
"""The quality of a loss that fell to 0 if the loss of a guess is unknown."""


@dataclass
class Outcome:
    """The result of a trial.

    `losses` are the losses of the steps; `failed` is the first step whose loss is NaN, infinite or far too large.
    `loss` and `right` are the mean loss and the share of correct answers after the steps, on batches of the test net,
    or of the train net if there is no test net. `chance` is the value that is reached without using the input (see
    Head.chance). If a loss predicts one quantity, an answer is correct if it is correct after rounding. `error` is the
    message if the run did not finish.
    """

    losses: np.ndarray
    failed: int | None = None
    loss: float = math.nan
    right: float = math.nan
    own: float = math.nan
    """The mean value of the judged loss alone, without the losses of other layers."""
    chance: float = math.nan
    floor: float = 0.0
    classes: bool = False
    seconds: float = 0.0
    work: float = 0.0
    """The time of a step in seconds, without the time used by other programs, as far as it is known."""
    step_seconds: float = 0.0
    spread: float = 1.0
    """How much the outputs differ between items, relative to their size."""
    error: str = ""

    @property
    def first(self) -> float:
        return float(self.losses[0]) if len(self.losses) else math.nan

    @property
    def last(self) -> float:
        """The mean loss of the last quarter of the steps; infinite if the run failed."""
        if self.failed is not None or not len(self.losses):
            return math.inf
        return float(self.losses[-max(1, len(self.losses) // 4) :].mean())

    @property
    def grown(self) -> bool:
        """Whether the run failed, or its loss is far larger than at the start."""
        return self.failed is not None or self.last > 2 * max(self.first, 1e-3)

    @property
    def quality(self) -> float:
        """From 0 (no better than ignoring the input) to 1 (everything correct); -1 for a run that failed."""
        if self.error or self.failed is not None:
            return -1.0
        if self.classes and math.isfinite(self.right):
            grown = max(1.0, self.last / self.first) if self.first > 0 else 1.0  # confident wrong answers
            return max(0.0, (self.right - self.chance) / max(1e-6, 1 - self.chance) / grown)
        if math.isfinite(self.chance) and self.chance > self.floor and math.isfinite(self.own):
            share = 1 - (self.own - self.floor) / (self.chance - self.floor)
        else:
            share = _PROGRESS * (1 - self.last / self.first) if self.first > 0 else 0.0
        return max(0.0, min(1.0, share))

    @property
    def text(self) -> str:
        """A short description of the result."""
        if self.error:
            return "does not run"
        steps = len(self.losses)
        if self.failed is not None:
            value = self.losses[self.failed]
            return f"loss {'NaN' if math.isnan(value) else f'{value:.3g}'} at step {self.failed}"
        right = f", {100 * self.right:.0f} % correct" if self.classes and math.isfinite(self.right) else ""
        return f"loss {self.last:.3g}{right} after {steps} steps"


@dataclass
class Trials:
    """Runs trials of a case and caches their results. No trial starts after `budget`.

    Time in which other programs used the machine is not counted, up to the same amount again. A busy machine thus
    changes the time but not the findings.
    """

    case: Case
    budget: float = math.inf
    begin: tuple[float, float] = field(default_factory=lambda: (time.monotonic(), time.process_time()))
    outcomes: dict[tuple[Change | None, int, int], Outcome] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        return int(self.case.param.random_seed) if self.case.param.random_seed >= 0 else 1

    def run(self, change: Change | None, steps: int, repeat: int = 0) -> Outcome:
        """Run `steps` updates with the change; `repeat` selects other seeds."""
        key = (change, steps, repeat)
        if key not in self.outcomes:
            self.outcomes[key] = self._run(change, steps, self.seed + 1000 * repeat)
        return self.outcomes[key]

    @property
    def left(self) -> float:
        """The remaining seconds."""
        wall, busy = time.monotonic() - self.begin[0], time.process_time() - self.begin[1]
        return max(0.0, self.budget - max(wall / 2, min(wall, busy)))

    def expected_seconds(self, steps: int) -> float:
        """The expected time of a trial, from those that finished."""
        known = [(outcome.work, key[1]) for key, outcome in self.outcomes.items() if outcome.failed is None]
        return max((seconds / max(1, count) for seconds, count in known), default=0.0) * steps

    def time_for(self, steps: int) -> bool:
        """Whether there is time for another trial."""
        return self.expected_seconds(steps) < self.left

    def _run(self, change: Change | None, steps: int, seed: int) -> Outcome:
        begin, busy = time.monotonic(), time.process_time()
        with quiet():
            try:
                solver = self.case.solver(change, seed)
            except CaffeError as error:
                return Outcome(np.empty(0), error=str(error))
            try:
                solver.net.slim()
                outcome = _trained(solver, steps)
                if outcome.failed is None:
                    _judge(solver, self.case.views(change), outcome)
            except CaffeError as error:
                outcome = Outcome(np.empty(0), error=str(error))
            finally:
                close(solver)
        outcome.seconds = time.monotonic() - begin
        outcome.work = min(outcome.seconds, time.process_time() - busy)
        return outcome


def _trained(solver: Any, steps: int) -> Outcome:
    losses: list[float] = []

    class Listener(Watcher):
        def iterated(self, solver: Any, iteration: int, loss: float, rate: float) -> None:
            losses.append(loss)

    solver.watchers.append(Listener())
    spans = np.zeros(steps)
    for step in range(steps):
        begin = time.monotonic()
        solver.step(1)
        spans[step] = time.monotonic() - begin
        if not math.isfinite(losses[-1]) or abs(losses[-1]) > _BLOWN_UP * max(1.0, abs(losses[0])):
            return Outcome(np.array(losses), failed=step)
    return Outcome(np.array(losses), step_seconds=float(np.median(spans)) if steps else 0.0)


def _judge(solver: Any, views: tuple[View, View], outcome: Outcome, items: int = 1000, batches: int = 10) -> None:
    """Compute the loss and the share of correct answers on some batches."""
    net = solver.test_nets[0] if solver.test_nets else solver.net
    if net is not solver.net:
        net.share_with(solver.net)
    view = views[1] if solver.test_nets else views[0]
    head = find_head(view)
    losses, right, labels, own, seen = [], [], [], [], 0
    for _ in range(batches):
        losses.append(net.forward_loss())
        if head is not None and {head.outputs, head.labels} <= set(net.blobs):
            outputs, given = net.blobs[head.outputs].data, net.blobs[head.labels].data
            right.append(head.share_right(outputs, given))
            own += [float(net.blobs[top].data.mean()) for top in head.node.spec.top[:1] if top in net.blobs]
            labels.append(given.reshape(len(given), -1).copy() if given.ndim else given.copy())
            seen += len(given)
            outcome.spread = _spread(outputs)
        if seen >= items:
            break
    outcome.loss = float(np.mean(losses))
    outcome.own = float(np.mean(own)) if own else math.nan
    if head is not None and labels:
        _compare(outcome, head, right, labels)
    if not math.isfinite(outcome.loss):
        outcome.failed = len(outcome.losses) - 1


def _spread(outputs: np.ndarray) -> float:
    flat = outputs.reshape(len(outputs), -1) if outputs.ndim else outputs.reshape(1, 1)
    size = float(np.abs(flat).mean())
    return float(flat.std(0).mean() / size) if size and len(flat) > 1 else 1.0


def _compare(outcome: Outcome, head: Head, right: list[float], labels: list[np.ndarray]) -> None:
    outcome.classes = head.classes
    outcome.right = float(np.mean(right))
    given = np.concatenate(labels)
    outcome.chance, outcome.floor = head.chance(given), 0.0 if head.classes else head.floor(given)
