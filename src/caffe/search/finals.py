"""The end of a search: repeats the best trials with several seeds, selects one, and uses the test data once."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caffe.doctor.case import Case, close, quiet
from caffe.doctor.changes import Change
from caffe.errors import SolverError
from caffe.proto import files
from caffe.search import runs
from caffe.search.lease import Lease, locked
from caffe.search.study import Search
from caffe.solver import get_solver

__all__ = ["Repeats", "Report", "finish", "half_interval"]

_T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Student's t for 95 %, by degrees of freedom from 1."""
BASELINE = "shipped"


@dataclass(frozen=True)
class Repeats:
    """A setting trained with several seeds: its values on the validation data, and on the test data if tested.

    `name` is "trial 7" or "shipped". `searched` is the value in the search; NaN for the given solver.
    """

    name: str
    params: dict[str, Any]
    searched: float
    validation: list[float]
    test: list[float]


@dataclass(frozen=True)
class Report:
    """The result of a search: the chosen setting, the given solver, and the other finalists.

    The gain is the value of the best trial in the search minus the mean of the given solver, on the validation data.
    `luck` is the part of the gain that disappeared when the best trial was repeated with other seeds.
    """

    goal: runs.Goal
    chosen: Repeats
    baseline: Repeats
    finalists: list[Repeats]
    written: list[str]

    @property
    def gain(self) -> float:
        best = max(self.finalists, key=lambda each: self.goal.sign * each.searched)
        return self.goal.sign * (best.searched - float(np.mean(self.baseline.validation)))

    @property
    def luck(self) -> float:
        best = max(self.finalists, key=lambda each: self.goal.sign * each.searched)
        return self.goal.sign * (best.searched - float(np.mean(best.validation)))

    @property
    def test_gain(self) -> tuple[float, float]:
        """The gain on the test data, and half its 95 % interval; NaN if nothing was tested."""
        mine, theirs = np.array(self.chosen.test), np.array(self.baseline.test)
        if not len(mine) or not len(theirs):
            return math.nan, math.nan
        return self.goal.sign * float((mine - theirs).mean()), half_interval(mine - theirs)  # pairs use the same seed

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a JSON-compatible dict."""
        gain, half = self.test_gain
        return {
            "metric": self.goal.output,
            "sign": self.goal.sign,
            "chosen": vars(self.chosen),
            "baseline": vars(self.baseline),
            "finalists": [vars(each) for each in self.finalists],
            "gain_seen_by_search": self.gain,
            "of_which_luck": self.luck,
            "test_gain": gain,
            "test_gain_half_interval": half,
            "written": self.written,
        }


def half_interval(values: Sequence[float] | np.ndarray) -> float:
    """Return half the 95 % interval of the mean, by Student's t; NaN for a single value."""
    count = len(values)
    if count < 2:
        return math.nan
    t = _T95[count - 2] if count - 2 < len(_T95) else 2.0
    return t * float(np.std(values, ddof=1)) / math.sqrt(count)


@dataclass(frozen=True)
class Setting:
    """A setting to repeat: its name, its change of solver and net (None: unchanged), and its value in the search."""

    name: str
    change: Change | None
    params: dict[str, Any]
    searched: float


def candidates(searches: Sequence[Search], count: int) -> list[Setting]:
    """Return the given solver, and the best trials of all searches."""
    found = [
        Setting(f"{search.title} {trial.number}", search.change_of(trial), trial.params, trial.value)
        for search in searches
        for trial in search.ranked[:count]
    ]
    if not found:
        errors = [trial.user_attrs["error"] for trial in searches[0].trials if "error" in trial.user_attrs]
        why = f"; the first error: {errors[0]}" if errors else ": all diverged or were stopped"
        raise SolverError(f"{searches[0].folder}: no trial was completed{why}")
    found.sort(key=lambda each: -searches[0].goal.sign * each.searched)
    return [Setting(BASELINE, None, {}, math.nan), *found[:count]]


def finish(searches: Sequence[Search], folder: Path, finalists: int, seeds: int, tell: Callable[[str], None]) -> Report:
    """Repeat the best trials and the given solver with `seeds` new seeds, select by validation, test, and write `best`.

    The processes of a search share the runs. The report is created once and read by processes that finish later.
    """
    first = searches[0]
    settings = candidates(searches, finalists)
    _repeat(first, folder, settings, seeds, tell)
    with locked(folder / "report.lock"):
        done = folder / "report.json"
        if done.exists():
            return _read(first.goal, json.loads(done.read_text()))
        repeats = [_gathered(first.goal, folder, setting, seeds) for setting in settings]
        index = max(range(1, len(repeats)), key=lambda each: first.goal.sign * float(np.mean(repeats[each].validation)))
        for each in (0, index):
            tell(f"test data: {repeats[each].name}")
            repeats[each].test.extend(_tested(first, folder, settings[each], seeds))
        change = settings[index].change
        assert change is not None
        written = _write_best(first.case, change, folder / "best", first.plan.steps)
        report = Report(first.goal, repeats[index], repeats[0], repeats[1:], written)
        with files.atomic(done) as file:
            file.write((json.dumps(report.as_dict(), indent=2) + "\n").encode())
    return report


def _repeat(search: Search, folder: Path, settings: Sequence[Setting], seeds: int, tell: Callable[[str], None]) -> None:
    """Train each setting with each seed, together with the other processes, until all runs are done."""
    todo = [(setting, seed) for seed in range(seeds) for setting in settings]
    while todo:
        left = []
        for setting, seed in todo:
            place = _place(folder, setting.name, seed)
            if runs.read_outcome(place) is not None:
                continue
            held = Lease.take(place / "lease")
            if held is None:
                left.append((setting, seed))
                continue
            try:
                tell(f"repeat: {setting.name}, seed {seed + 1} of {seeds}")
                number, part = search.plan.seed + 1001 + seed, search.parts[0]
                param = runs.parameters(search.case, setting.change, part, number, search.plan.steps, place)
                runs.train(param, search.goal, lambda *_: False, place)
            finally:
                held.release()
        todo = left
        if todo:
            time.sleep(0.5)


def _place(folder: Path, name: str, seed: int) -> Path:
    return folder / "repeats" / f"{name.replace(' ', '')}_{seed}"


def _gathered(goal: runs.Goal, folder: Path, setting: Setting, seeds: int) -> Repeats:
    outcomes = [runs.read_outcome(_place(folder, setting.name, seed)) for seed in range(seeds)]
    worst = -goal.sign * math.inf
    values = [each.value if each is not None and not each.stopped else worst for each in outcomes]
    return Repeats(setting.name, dict(setting.params), setting.searched, values, [])


def _tested(search: Search, folder: Path, setting: Setting, seeds: int) -> list[float]:
    """Return the test values of a setting's nets, using the solver's own test net and test_iter."""
    if not search.case.param.test_iter:
        return []
    found = []
    for seed in range(seeds):
        outcome = runs.read_outcome(_place(folder, setting.name, seed))
        if outcome is None or not outcome.weights or outcome.stopped:
            return []
        with quiet():
            solver = get_solver(search.case.parameters(setting.change), source=None)
            try:
                solver.net.copy_from(outcome.weights)
                found.append(solver.test(0)[search.goal.output][0])
            finally:
                close(solver)
    return found


def _write_best(case: Case, change: Change, folder: Path, steps: int) -> list[str]:
    """Write solver and net with the chosen values, for all training data and with the iterations of a trial."""
    from caffe.doctor.changes import SetField

    length = () if steps in (0, case.param.max_iter) else (SetField(None, "max_iter", str(steps)),)
    return [str(path) for path in case.write(Change(change.text, (*change.edits, *length)), folder)]


def _read(goal: runs.Goal, stored: dict[str, Any]) -> Report:
    made = [Repeats(**each) for each in (stored["chosen"], stored["baseline"], *stored["finalists"])]
    return Report(goal, made[0], made[1], made[2:], stored["written"])
