"""Watches a training run and reports faults."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from caffe.doctor.finding import Finding
from caffe.solver import Watcher, kept
from caffe.solver.run import TrainingRun
from caffe.watch.course import Course
from caffe.watch.first_bad import Before, first_bad
from caffe.watch.reports import Reports
from caffe.watch.rules import State, examine
from caffe.watch.samples import Samples

__all__ = ["FaultWatcher"]

_GAP, _SHARE = 50, 1000
"""Iterations between two evaluations of the rules; after one, the run continues for this multiple of its time."""


class FaultWatcher(Watcher):
    """Reports faults in a run, each once.

        solver.watchers.append(FaultWatcher())

    It records each loss, measures gradients and updates from time to time, and evaluates its rules less and less often.
    If a loss is not finite, its step is repeated layer by layer to find the first such value. None of this changes the
    training.
    """

    def __init__(self, reports: Reports | None = None, tell: Callable[[int, Finding], None] | None = None) -> None:
        """`tell` is also called with each new finding."""
        self.reports, self.tell = reports or Reports(), tell
        self.state: State | None = None
        self._before: Before | None = None
        self._next, self._rest = _GAP, 0.0
        self._losses: list[float] = []

    def started(self, solver: TrainingRun) -> None:
        self.reports.start(resumed=solver.iter > 0)
        self._begin(solver)

    def _begin(self, solver: TrainingRun) -> State:
        net = solver.net
        fresh = solver.iter == 0 and not solver.param.weights
        length = max(1, solver.param.max_iter - solver.iter)
        self.state = State(Course(), Samples(net), length, fresh)
        self._sources = [source for _, source in kept.sources([net])]
        self._buffers = [(layer, name) for _, layer, name, _ in kept.buffers([net])]
        return self.state

    def begins(self, solver: TrainingRun, iteration: int) -> None:
        if self.state is None:
            self._begin(solver)
        self._before = Before.now(solver.net.device, self._sources, self._buffers)

    def computed(self, solver: TrainingRun, iteration: int, loss: float) -> None:
        if self.state is None:
            return
        if math.isfinite(loss):
            if iteration >= self.state.samples.next:
                self.state.samples.before(iteration)
        elif self._before is not None and not {"diverges", "non-finite-data"} & self.reports.told:
            alone = not solver.together.several
            self._report(iteration, first_bad(solver.net, self._before, solver.param.iter_size, loss, alone))

    def iterated(self, solver: TrainingRun, iteration: int, loss: float, rate: float) -> None:
        if self.state is None:
            return
        self._losses.append(loss)
        if self.state.samples.due:
            self.state.samples.after(iteration)
        if iteration >= self._next and (begin := time.perf_counter()) >= self._rest:
            self._next = iteration + _GAP
            self._examine(iteration)
            now = time.perf_counter()
            self._rest = now + _SHARE * (now - begin)

    def tested(self, solver: TrainingRun, iteration: int, net_index: int, outputs: dict[str, list[float]]) -> None:
        if self.state is not None and net_index == 0:
            self.state.course.tests.append({name: values[0] for name, values in outputs.items() if len(values) == 1})
            self._examine(iteration)

    def finished(self, solver: TrainingRun) -> None:
        if self.state is not None:
            self.state.over = not solver.stopped
            self._examine(solver.iter)
        self.reports.finish()

    def _examine(self, iteration: int) -> None:
        assert self.state is not None
        for loss in self._losses:
            self.state.course.add(loss)
        self._losses.clear()
        for finding in examine(self.state):
            self._report(iteration, finding)

    def _report(self, iteration: int, finding: Finding) -> None:
        if self.reports.tell(iteration, finding) and self.tell is not None:
            self.tell(iteration, finding)
