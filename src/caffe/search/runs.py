"""One training run of a search. It continues from its newest snapshot, and reports its validation values."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caffe.doctor.case import Case, close, quiet
from caffe.doctor.changes import Change
from caffe.errors import CaffeError, SolverError, did_you_mean
from caffe.proto import files
from caffe.search import split
from caffe.solver import Watcher, get_solver, snapshot

__all__ = ["Goal", "Outcome", "parameters", "read_outcome", "train"]

_SNAPSHOT_SECONDS = 1.0
Heard = Callable[[int, float], bool]
"""Called with iteration and value of each validation. True stops the run as not promising."""


@dataclass(frozen=True)
class Goal:
    """The value to optimize: an output of the test net, and whether to maximize (`sign` 1) or minimize (-1) it."""

    output: str
    sign: int

    @classmethod
    def of(cls, solver: Any, wanted: str, direction: str) -> Goal:
        """Return the output `wanted`, or else the first Accuracy, or else the first loss of the solver's test net."""
        if not solver.test_nets:
            raise SolverError("the solver has no test net; add a data layer in the phase TEST to the net")
        net = solver.test_nets[0]
        losses = [name for name, weight in net.blob_loss_weights.items() if weight and name in net.outputs]
        right = [top for layer in net.layers if layer.is_score for top in net.top_names[layer.name][:1]]
        if wanted and wanted not in net.outputs:
            known = ", ".join(net.outputs)
            hint = did_you_mean(wanted, net.outputs)
            raise SolverError(f"-metric {wanted}: the test net has no such output{hint}; it has {known}")
        names = [wanted] if wanted else [*right, *losses]
        if not names:
            raise SolverError(f"the test net has no Accuracy and no loss; give one of {net.outputs} by -metric")
        sign = {"maximize": 1, "minimize": -1}.get(direction, 1 if names[0] in right else -1)
        if not direction and names[0] not in (*right, *losses):
            raise SolverError(f"-metric {names[0]}: is not accuracy or loss; give -direction maximize or minimize")
        return cls(names[0], sign)


@dataclass
class Outcome:
    """The result of a run: `value` after the last iteration, and `curve`, the (iteration, value) of each validation.

    `stopped` is "" for a completed run, "pruned", or "diverged". `weights` is the file of weights.
    """

    value: float = math.nan
    curve: list[tuple[int, float]] = field(default_factory=list)
    stopped: str = ""
    weights: str = ""


class _Listener(Watcher):
    def __init__(self, goal: Goal, heard: Heard, outcome: Outcome) -> None:
        self.goal, self.heard, self.outcome = goal, heard, outcome

    def iterated(self, solver: Any, iteration: int, loss: float, rate: float) -> None:
        if not math.isfinite(loss):
            self.outcome.stopped = "diverged"
            solver.request("stop")

    def tested(self, solver: Any, iteration: int, net_index: int, outputs: dict[str, list[float]]) -> None:
        value = outputs[self.goal.output][0]
        self.outcome.curve.append((iteration, value))
        if not math.isfinite(value):
            self.outcome.stopped = "diverged"
        elif self.heard(iteration, value) and iteration < solver.param.max_iter:
            self.outcome.stopped = "pruned"
        if self.outcome.stopped:
            solver.request("stop")


def parameters(case: Case, change: Change | None, part: split.Part, seed: int, steps: int, folder: Path) -> Any:
    """Return the solver of a run, with its nets inside, ten validations, and snapshots in the folder."""
    param = case.parameters(change, seed)
    if steps:
        param.max_iter = steps
    if param.max_iter < 1:
        raise SolverError(f"{case.path}: max_iter is {param.max_iter}; a search needs the length of a trial")
    split.use(param, part)
    interval = max(1, param.max_iter // 10)
    param.test_interval = interval
    param.snapshot_prefix = str(folder / "run")
    return param


def train(param: Any, goal: Goal, heard: Heard, folder: Path) -> Outcome:
    """Train to the end, starting from the newest snapshot in the folder. A completed run is not repeated.

    Only the newest snapshot is kept. Raises the errors of building and training a net.
    """
    outcome = read_outcome(folder)
    if outcome is not None:
        return outcome
    folder.mkdir(parents=True, exist_ok=True)
    outcome = Outcome()
    with quiet():
        solver = get_solver(param, source=None)
        try:
            solver.net.slim()
            state = _restored(solver, folder, outcome)
            outcome.curve = [pair for pair in outcome.curve if pair[0] < solver.iter]
            solver.watchers += [_Listener(goal, heard, outcome), _Keeper(outcome, folder, state)]
            solver.solve()
            if not outcome.stopped:
                if not outcome.curve or outcome.curve[-1][0] != solver.iter:
                    outcome.curve.append((solver.iter, solver.test(0)[goal.output][0]))
                outcome.value = outcome.curve[-1][1]
                outcome.stopped = "" if math.isfinite(outcome.value) else "diverged"
                outcome.weights = str(folder / "net.caffemodel")
                solver.net.save(outcome.weights)
        finally:
            close(solver)
    _write(folder / "outcome.json", outcome)
    for path in folder.glob("run_iter_*"):
        path.unlink()
    return outcome


class _Keeper(Watcher):
    """Requests a snapshot every second, saves the curve beside it, and removes the previous snapshot."""

    def __init__(self, outcome: Outcome, folder: Path, state: str) -> None:
        self.outcome, self.folder, self.before = outcome, folder, state
        self.last = time.monotonic()

    def iterated(self, solver: Any, iteration: int, loss: float, rate: float) -> None:
        if time.monotonic() - self.last > _SNAPSHOT_SECONDS:
            self.last = time.monotonic()
            solver.request("snapshot")

    def snapshotted(self, solver: Any, path: str) -> None:
        _write(self.folder / "curve.json", self.outcome)
        if self.before and self.before != path:
            for name in (self.before, self.before.replace(".solverstate", ".caffemodel")):
                Path(name).unlink(missing_ok=True)
        self.before = path


def _restored(solver: Any, folder: Path, outcome: Outcome) -> str:
    """Restore the newest readable snapshot and the curve up to it; returns its path."""
    state = next(iter(snapshot.newest(solver.param.snapshot_prefix)), None)
    if state is None:
        return ""
    try:
        solver.restore(state)
    except CaffeError:  # the process was killed while writing: the run starts again
        return state
    stored = _read(folder / "curve.json")
    outcome.curve = stored.curve if stored else []
    return state


def read_outcome(folder: Path) -> Outcome | None:
    """Read the outcome of a completed run."""
    return _read(folder / "outcome.json")


def _write(path: Path, outcome: Outcome) -> None:
    with files.atomic(path) as file:
        file.write(json.dumps(vars(outcome)).encode())


def _read(path: Path) -> Outcome | None:
    if not path.exists():
        return None
    stored = json.loads(path.read_text())
    stored["curve"] = [(int(iteration), float(value)) for iteration, value in stored["curve"]]
    return Outcome(**stored)
