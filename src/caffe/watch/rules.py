"""The rules that find faults while a training runs.

They wait for strong evidence, so that healthy runs give no findings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from caffe.doctor.curves import FLAT, UNDERFLOW, flat_share, grown, least_test_loss, stuck
from caffe.doctor.finding import Finding, Severity
from caffe.watch.course import Course
from caffe.watch.samples import Samples

__all__ = ["State", "examine"]

_LEAST, _PATIENCE, _QUICK = 300, 5000, 100
"""Number of iterations without change of the loss: minimum, maximum, and with tiny updates."""
_SMALL, _LARGE, _USUAL = 1e-5, 0.3, "about 1e-3 is usual"
_APART, _SERIOUS, _LOST, _SINCE = 1.3, 0.25, 0.01, 3
"""Overfitting: growth of the test loss relative to its minimum and to the first one, decrease of the accuracy, and
number of tests since the minimum.
"""
_BARELY, _SWINGS = 0.85, 3
_DEAD = 0.5


@dataclass
class State:
    """The input of the rules. `length` is the number of iterations of the run.

    `fresh` says whether the run started with weights from fillers, `over` whether it has ended.
    """

    course: Course
    samples: Samples
    length: int
    fresh: bool = True
    over: bool = False


def examine(state: State) -> list[Finding]:
    """Return the findings of all rules."""
    return [finding for rule in _RULES for finding in rule(state)]


def _diverges(state: State) -> Iterator[Finding]:
    recent, start = np.array(state.course.recent), state.course.start
    if state.course.count < 20:
        return
    if stuck(recent, 20):
        yield Finding(
            "loss-stuck-at-87.3",
            Severity.ERROR,
            f"the loss stays at {UNDERFLOW}: the correct class has a probability of 0",
            "lower base_lr, or scale the input down",
        )
    elif state.course.count >= 2 * len(recent) and grown(recent, start, len(recent) - 1):
        yield Finding(
            "diverges",
            Severity.ERROR,
            f"the loss has grown from {start:.4g} to {recent.mean():.4g}",
            "lower base_lr, or clip_gradients",
        )


def _flat(state: State) -> Iterator[Finding]:
    course, losses = state.course, state.course.means
    ratio = state.samples.largest_ratio
    wait = min(max(_LEAST, state.length // 5), _PATIENCE)
    tiny = ratio is not None and ratio < _SMALL
    wait = _QUICK if tiny else (min(wait, max(_QUICK, state.length // 2)) if state.over else wait)
    if not state.fresh or course.count < wait or flat_share(losses) is None or stuck(np.array(course.recent), 20):
        return
    quarter, tenth = losses[: max(1, len(losses) // 4)], losses[-max(1, len(losses) // 10) :]
    begin = float(quarter.mean())
    unsure = not tiny and float(quarter.std()) / np.sqrt(len(quarter)) > FLAT / 2 * begin
    limit = FLAT if tiny else FLAT / 2
    if unsure or abs(begin - tenth.mean()) > limit * begin or abs(begin - course.start) > 2 * FLAT * begin:
        return
    size = f"; updates are {ratio:.0e} of the weights, {_USUAL}" if ratio is not None else ""
    yield Finding(
        "nothing-learns",
        Severity.WARNING,
        f"the loss has barely changed: {course.start:.4g} at first, {tenth.mean():.4g} now{size}",
        "raise base_lr" if tiny else "the rate may be too low; caffe doctor on the solver finds the cause",
        f"{course.count} iterations",
    )


def _oscillates(state: State) -> Iterator[Finding]:
    swings, course = state.course.swings, state.course
    if (count := swings.lately(course.count)) >= _SWINGS:
        yield Finding(
            "oscillates",
            Severity.WARNING,
            f"the loss oscillates: {count} times in 500 iterations it fell below {swings.low:.3g} and rose above "
            f"{swings.high:.3g}, its start",
            "lower base_lr or momentum",
        )


def _overfits(state: State) -> Iterator[Finding]:
    tests, right = state.course.tested("loss"), state.course.tested("accuracy")
    tests = tests[np.isfinite(tests)]
    best = least_test_loss(tests, state.course.means, _APART)
    if best is None or state.course.means[-1] > tests[-1] / 2:
        return
    since = tests[best + 1 :]
    if len(since) < max(_SINCE, len(tests) // 4) or since.min() < _APART * tests[best]:
        return
    if tests[-1] < _SERIOUS * tests[0]:
        return
    if len(right) == len(tests) and right[-1] > right[best] - _LOST:  # not wrong more often, only more confident
        return
    yield Finding(
        "overfits",
        Severity.WARNING,
        f"the test loss was {tests[best]:.4g} at best, {len(tests) - 1 - best} tests ago, and is {tests[-1]:.4g}, "
        f"while the training loss is {state.course.means[-1]:.4g}",
        "use an earlier snapshot; more data, weight decay or dropout",
    )


def _underfits(state: State) -> Iterator[Finding]:
    course, losses, tests = state.course, state.course.means, state.course.tested("loss")
    if not state.fresh or course.count < max(1000, 3 * state.length // 4) or len(tests) < 3 or not len(losses):
        return
    now = float(losses[-max(1, len(losses) // 4) :].mean())
    high = now > _BARELY * course.start > 0 and tests[-1] > _BARELY * tests[0] > 0
    if high and flat_share(losses) is None and course.tested("accuracy").size and not grown(tests, tests[0], 2):
        yield Finding(
            "underfits",
            Severity.WARNING,
            f"training and test loss both stay high: {course.start:.4g} and {tests[0]:.4g} at first, {now:.4g} and "
            f"{tests[-1]:.4g} after {course.count} iterations",
            "a larger net, a higher base_lr, or less weight decay and dropout",
        )


def _updates(state: State) -> Iterator[Finding]:
    for name, ratio in state.samples.large(_LARGE):
        yield Finding(
            "rate-too-high",
            Severity.WARNING,
            f'updates of layer "{name}" are {ratio:.2g} of its weights, {_USUAL}',
            "lower base_lr or the layer's lr_mult",
            layer=name,
        )


def _dying(state: State) -> Iterator[Finding]:
    for name, share, items in state.samples.dead(_DEAD):
        yield Finding(
            "dead-units",
            Severity.WARNING,
            f'{100 * share:.0f} % of the units of layer "{name}" were 0 for every input of {items} batches',
            "lower base_lr, initialize biases to 0 or slightly above, or use a leaky ReLU",
            layer=name,
        )


_RULES: tuple[Callable[[State], Iterator[Finding]], ...] = (
    _diverges,
    _flat,
    _oscillates,
    _overfits,
    _underfits,
    _updates,
    _dying,
)
