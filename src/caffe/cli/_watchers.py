"""Watchers of a training run: the progress display and the recorder of its curves."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from caffe import log, plot
from caffe.cli.display import Bar, Display
from caffe.errors import CaffeError
from caffe.solver.watchers import Watcher
from caffe.watch import Epochs, FaultWatcher, Reports

if TYPE_CHECKING:
    from caffe.solver.run import TrainingRun

__all__ = ["Progress", "Recorder", "finish", "followers"]


class Progress(Watcher):
    """Updates the progress bar; prints test results and snapshots above it."""

    def __init__(self, display: Display, bar: Bar) -> None:
        self.display = display
        self.bar = bar
        self.mean: float | None = None
        self.state = self.score = ""
        self.drawn = 0.0
        self.seen: tuple[int, float] | None = None

    def iterated(self, solver: TrainingRun, iteration: int, loss: float, rate: float) -> None:
        self.mean = loss if self.mean is None else 0.9 * self.mean + 0.1 * loss
        now = time.monotonic()
        if now - self.drawn > 0.1 or iteration + 1 >= solver.param.max_iter:
            self.drawn = now
            self.state = f"train: loss {self.mean:.4g}, learning rate {rate:.4g}{self._speed(solver, iteration, now)}"
            self.bar.update(iteration + 1, self.state + self.score)

    def _speed(self, solver: TrainingRun, iteration: int, now: float) -> str:
        """Return the records per second of all processes since the last call, if there are several processes."""
        before, self.seen = self.seen, (iteration, now)
        if not solver.together.several or before is None or now <= before[1]:
            return ""
        records = solver.together.records * solver.param.iter_size * (iteration - before[0]) / (now - before[1])
        return f", {records:,.0f} records/s of {solver.together.group.size} processes"

    def tested(self, solver: TrainingRun, iteration: int, net_index: int, outputs: dict[str, list[float]]) -> None:
        results = ", ".join(f"{name} {' '.join(map(log.number, values))}" for name, values in outputs.items())
        which = f"test net {net_index}" if len(solver.test_nets) > 1 else "test"
        self.display.say(f"iteration {iteration}: {which}: {results}")
        if net_index == 0:
            self.score = f"   test: {results}"
            self.bar.update(iteration, (self.state + self.score).strip())

    def snapshotted(self, solver: TrainingRun, path: str) -> None:
        base, _, end = path.rpartition(".solverstate")
        self.display.say(f"iteration {solver.iter}: snapshot: weights {base}.caffemodel{end}, state {path}")


class Recorder(Watcher):
    """Records the curves of a run, and draws them at each snapshot and at the end."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.curves = plot.Curves("")

    def started(self, solver: TrainingRun) -> None:
        self.curves.name = self.curves.net = solver.net.name

    def iterated(self, solver: TrainingRun, iteration: int, loss: float, rate: float) -> None:
        self.curves.loss.add(iteration, loss)
        self.curves.rate.add(iteration, rate)

    def tested(self, solver: TrainingRun, iteration: int, net_index: int, outputs: dict[str, list[float]]) -> None:
        weights = solver.test_nets[net_index].blob_loss_weights
        for name, values in outputs.items():
            for index, value in enumerate(values):
                label = f"{name}[{index}]" if index else name
                self.curves.add_test(net_index, label, iteration, value, is_loss=bool(weights.get(name)))

    def snapshotted(self, solver: TrainingRun, path: str) -> None:
        self.draw()

    def draw(self) -> bool:
        """Draw the curves so far; returns whether it succeeded. A failure does not end the training."""
        if self.curves.empty:
            return False
        try:
            plot.draw([self.curves], self.path)
        except CaffeError as error:
            log.warning("caffe", f"the curves were not drawn: {error}")
            return False
        return True


def followers(param: Any, flags: SimpleNamespace) -> list[Watcher]:
    """Return the watchers that write event files and report findings and epochs.

    Findings are written to the folder of the event files, or beside the snapshots, if there are any.
    """
    prefix = param.snapshot_prefix if param.snapshot or param.snapshot_after_train else ""
    there = prefix and os.path.isdir(os.path.dirname(prefix) or ".")
    path = f"{prefix}_findings.jsonl" if there else ""
    made: list[Watcher] = []
    events = None
    if flags.logdir:
        from caffe.watch.events import Events

        events = Events(flags.logdir)
        made, path = [events], os.path.join(flags.logdir, "findings.jsonl")
    if flags.watch == "on":
        made += [FaultWatcher(Reports(path, flags.on_finding), events.found if events else None), Epochs()]
    return made


def finish(watchers: list[Watcher]) -> None:
    """Close what the run has kept open, also after an error."""
    from caffe.watch.events import Events

    for watcher in watchers:
        if isinstance(watcher, FaultWatcher):
            watcher.reports.finish()
        elif isinstance(watcher, Events):
            watcher.close()
