"""`caffe train`: which weights are kept, and the summary at the end."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from caffe import log
from caffe.errors import CaffeError, did_you_mean
from caffe.solver.epochs import records
from caffe.solver.goals import Best, best_path
from caffe.solver.watchers import Watcher
from caffe.zoo.folder import ModelFolder

__all__ = ["Summary", "ended_early", "set_goals"]


def set_goals(param: Any, flags: SimpleNamespace) -> None:
    """Set the flags -keep and -keep_last in the solver's parameters."""
    if flags.keep not in ("", "best"):
        raise CaffeError(f"-keep {flags.keep}: expected best{did_you_mean(flags.keep, ('best',))}")
    if flags.keep_last < 0:
        raise CaffeError(f"-keep_last {flags.keep_last}: expected 0 or more")
    if flags.keep:
        param.keep_best = True
    if flags.keep_last:
        param.keep_last = flags.keep_last


def ended_early(solver: Any) -> bool:
    """Whether `early_stop` has ended the run."""
    return any(isinstance(each, Best) and each.stopped for each in solver.watchers)


class Summary(Watcher):
    """Collects facts about a run, and prints them in a few lines at the end."""

    def __init__(self, solver_file: str, folder_commands: bool) -> None:
        self.solver_file, self.short = solver_file, folder_commands
        self.begun = time.monotonic()
        self.iterations = 0
        self.seconds = 0.0
        self.images = 0
        self.last: dict[str, list[float]] = {}
        self.first_loss: float | None = None
        self.loss = 0.0
        self.files: list[str] = []

    def started(self, solver: Any) -> None:
        self.begun = time.monotonic()
        batch, _ = records(solver.net)
        self.images = batch * solver.param.iter_size * solver.together.group.size

    def begins(self, solver: Any, iteration: int) -> None:
        self._from = time.monotonic()

    def iterated(self, solver: Any, iteration: int, loss: float, rate: float) -> None:
        self.seconds += time.monotonic() - self._from
        self.iterations += 1
        self.loss = loss
        self.first_loss = loss if self.first_loss is None else self.first_loss

    def tested(self, solver: Any, iteration: int, net_index: int, outputs: dict[str, list[float]]) -> None:
        if not net_index:
            self.last = outputs

    def snapshotted(self, solver: Any, path: str) -> None:
        self.files.append(path)

    def lines(self, solver: Any) -> list[str]:
        """Return the lines of the summary."""
        best = next((each for each in solver.watchers if isinstance(each, Best)), None)
        took = time.monotonic() - self.begun
        speed = (
            f", {self.images * self.iterations / self.seconds:,.0f} images/s" if self.images and self.seconds else ""
        )
        first = "" if self.first_loss is None else f", loss {log.number(self.first_loss)} -> {log.number(self.loss)}"
        lines = [f"{self.iterations} iterations in {_clock(took)}{speed}{first}"]
        if best is not None and best.iteration >= 0:
            lines.append(f"best: {best.output} {log.number(best.value)} at iteration {best.iteration}")
            if best.stopped:
                lines.append(f"stopped early: {solver.param.early_stop.patience} tests without a better {best.output}")
        if self.last:
            results = ", ".join(f"{name} {' '.join(map(log.number, each))}" for name, each in self.last.items())
            lines.append(f"last test: {results}")
        weights = self._weights(solver, best)
        if weights:
            lines.append(f"weights: {weights}" + (f"; {len(self.files)} snapshots" if self.files else ""))
            if self.short and ModelFolder.is_one("."):
                files = [os.path.relpath(path) for path in ModelFolder.open(".").deploy_files]
                lines.append(f"to use it elsewhere: {', '.join(files)}")
            lines.append(f"next: {self._next(solver, weights)}")
        return lines

    def _weights(self, solver: Any, best: Best | None) -> str:
        if best is not None and solver.param.keep_best and best.iteration >= 0:
            return str(best_path(solver.param))
        if not self.files:
            return ""
        base, _, end = self.files[-1].rpartition(".solverstate")
        return f"{base}.caffemodel{end}"

    def _next(self, solver: Any, weights: str) -> str:
        if self.short and Path("train_val.prototxt").exists():
            return "caffe test"
        net = solver.param.net or solver.param.train_net or "NET"
        tests = solver.param.test_iter
        return f"caffe test -model {net} -weights {weights}" + (f" -iterations {tests[0]}" if tests else "")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
