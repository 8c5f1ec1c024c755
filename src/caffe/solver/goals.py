"""Early stopping, and which weights a run keeps: the best ones and the last snapshots."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

from caffe import log
from caffe.errors import SolverError, did_you_mean
from caffe.proto import files
from caffe.solver import snapshot
from caffe.solver.run import TrainingRun
from caffe.solver.watchers import Watcher

__all__ = ["Best", "Last", "best_path", "check_goals", "watchers"]


def check_goals(param: Any) -> None:
    """Raise a `SolverError` for settings that cannot work."""
    if param.HasField("early_stop") and param.early_stop.patience < 1:
        raise SolverError(f"patience is {param.early_stop.patience} in early_stop, expected at least 1")
    if param.keep_last < 0:
        raise SolverError(f"keep_last is {param.keep_last}, expected 0 or more")
    asked = "keep_best" if param.keep_best else "early_stop" if param.HasField("early_stop") else ""
    if asked and not (param.test_iter and (param.test_interval or param.test_every_epoch)):
        raise SolverError(f"{asked} is set, but the run has no tests; set test_iter and test_interval")
    if param.keep_best:
        if not param.HasField("snapshot_prefix"):
            raise SolverError("keep_best is set but snapshot_prefix is not; set it to a path prefix")
        snapshot.check_prefix(param)


def watchers(param: Any) -> list[Watcher]:
    """Return the watchers that the solver's settings ask for."""
    made: list[Watcher] = []
    if param.keep_best or param.HasField("early_stop"):
        made.append(Best(param))
    if param.keep_last:
        made.append(Last(param.keep_last))
    return made


def best_path(param: Any) -> Path:
    """Return the path of the best weights."""
    end = ".h5" if param.snapshot_format == param.HDF5 else ""
    return Path(f"{param.snapshot_prefix}_best.caffemodel{end}")


class Best(Watcher):
    """Saves the weights of the best test of a run, and stops the run if the tests stop improving.

    The output that is compared is `early_stop.output` if set; otherwise the first output whose name contains "accuracy"
    (the largest value is best); otherwise the first loss (the smallest value is best). Of equally good tests the one
    with the smallest loss is best, but `early_stop` does not count it as an improvement. `value` and `iteration`
    describe the best test so far; `iteration` is -1 before the first test. `stopped` is true if this watcher ended the
    run. A resumed run continues from the values in PREFIX_best.json.
    """

    def __init__(self, param: Any) -> None:
        self.param = param
        self.output = ""
        self.sign = 1
        self.value = math.nan
        self.iteration = -1
        self.stopped = False
        self._waited = 0
        self._least = math.inf

    def started(self, solver: TrainingRun) -> None:
        if not self.param.keep_best or not solver.iter:
            return
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            facts = json.loads(self._notes.read_text())
            if int(facts["iteration"]) <= solver.iter:
                self.value, self.iteration = float(facts["value"]), int(facts["iteration"])
                self._waited = int(facts["waited"])
                self._least = float(facts.get("loss", math.inf))

    @property
    def _notes(self) -> Path:
        return best_path(self.param).with_name(f"{Path(self.param.snapshot_prefix).name}_best.json")

    def tested(self, solver: TrainingRun, iteration: int, net_index: int, outputs: dict[str, list[float]]) -> None:
        if net_index:
            return
        self.output = self.output or self._chosen(solver, outputs)
        value = sum(outputs[self.output]) / len(outputs[self.output])
        gain = self.param.early_stop.min_gain
        better = math.isfinite(value) and (self.iteration < 0 or self.sign * (value - self.value) > gain)
        loss = self._loss(solver, outputs)
        if better or (value == self.value and loss < self._least):
            self._waited = 0 if better else self._waited + (iteration > self.iteration)
            self.value, self.iteration, self._least = value, iteration, loss
            self._keep(solver)
        else:
            self._waited += iteration > self.iteration
            self._note(solver)
        if self.param.HasField("early_stop") and self._waited >= self.param.early_stop.patience and not self.stopped:
            self.stopped = True
            log.info(
                "goals", f"Iteration {iteration}: stops early: {self._waited} tests without a better {self.says()}"
            )
            solver.request("stop")

    def _loss(self, solver: TrainingRun, outputs: dict[str, list[float]]) -> float:
        """The test loss, which decides between tests that are equally good; 0 where there is none."""
        weights = solver.test_nets[0].blob_loss_weights
        return sum(weights.get(name, 0) * sum(values) for name, values in outputs.items())

    def says(self) -> str:
        """Describe the best value for a message, such as `accuracy than 0.97 at iteration 300`."""
        return f"{self.output} than {log.number(self.value)} at iteration {self.iteration}"

    def _chosen(self, solver: TrainingRun, outputs: dict[str, list[float]]) -> str:
        wanted = self.param.early_stop.output
        if wanted and wanted not in outputs:
            hint = did_you_mean(wanted, outputs)
            raise SolverError(f'early_stop: the test net has no output "{wanted}"{hint} (it has: {", ".join(outputs)})')
        losses = [name for name in outputs if solver.test_nets[0].blob_loss_weights.get(name)]
        right = [name for name in outputs if "accuracy" in name.lower()]
        name = wanted or next(iter(right + losses), "")
        if not name:
            raise SolverError(f"early_stop and keep_best need an accuracy or a loss; outputs are: {', '.join(outputs)}")
        self.sign = -1 if name in losses or "loss" in name.lower() else 1
        return name

    def _keep(self, solver: TrainingRun) -> None:
        """Save the weights that were tested; these are the averaged weights if there is a moving average."""
        if not self.param.keep_best:
            return
        path = best_path(self.param)
        with solver.together.whole(solver):
            self._write(solver, path)
        self._note(solver)
        log.info("goals", f"Iteration {self.iteration}: best {self.output} so far, {log.number(self.value)}: {path}")

    def _write(self, solver: TrainingRun, path: Path) -> None:
        if not solver.together.group.rank:
            if solver.average.tensors is not None:
                solver.save_average(str(path))
            else:
                (solver.net.save_hdf5 if path.suffix == ".h5" else solver.net.save)(path)

    def _note(self, solver: TrainingRun) -> None:
        if self.param.keep_best and not solver.together.group.rank:
            facts = {"output": self.output, "value": self.value, "iteration": self.iteration, "waited": self._waited}
            facts["loss"] = self._least
            with files.atomic(self._notes) as file:
                file.write(json.dumps(facts).encode())


class Last(Watcher):
    """Deletes the snapshots of this run except for the last `count`."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._written: list[str] = []

    def snapshotted(self, solver: TrainingRun, path: str) -> None:
        if path in self._written:
            self._written.remove(path)
        self._written.append(path)
        while len(self._written) > self.count:
            state = self._written.pop(0)
            if solver.together.group.rank:
                continue
            base, _, end = state.rpartition(".solverstate")
            for old in (state, f"{base}.caffemodel{end}"):
                with contextlib.suppress(FileNotFoundError):
                    Path(old).unlink()
