"""The trials of a search, in an Optuna storage shared by several processes."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caffe.doctor.case import Case
from caffe.doctor.changes import Change
from caffe.errors import CaffeError, SolverError, did_you_mean, require_extra
from caffe.search import runs, split, storage
from caffe.search.lease import Lease, locked
from caffe.search.space import Space

__all__ = ["METHODS", "PRUNERS", "Plan", "Search"]

METHODS = ("random", "grid", "tpe")
PRUNERS = ("none", "median", "hyperband")
_POLL = 0.5


@dataclass(frozen=True)
class Plan:
    """The settings of a search, equal in all its processes. `steps` is the number of iterations of a trial.

    `storage` is the URL of a database, such as postgresql://user@host/name; empty for a journal file.
    """

    trials: int = 20
    method: str = "random"
    pruner: str = "none"
    seed: int = 1
    steps: int = 0
    storage: str = ""

    def check(self) -> None:
        """Raise a SolverError for invalid settings."""
        for flag, value, known in (("method", self.method, METHODS), ("prune", self.pruner, PRUNERS)):
            if value not in known:
                raise SolverError(f"-{flag} {value}: expected {', '.join(known)}{did_you_mean(value, known)}")
        if self.trials < 1:
            raise SolverError(f"-trials {self.trials}: expected at least 1")
        if self.storage:
            storage.check_address(self.storage)


class Search:
    """One study: starts trials, continues those of killed processes, and reports the results to Optuna.

    A trial belongs to the process that holds the lock of its folder. The kernel releases the lock when the process
    ends. A trial with the state "running" and a free lock was therefore killed, and is continued from its snapshot.
    Trials are assigned under the lock of the study, so that no trial runs twice.
    """

    def __init__(
        self, case: Case, space: Space, plan: Plan, folder: Path, goal: runs.Goal, parts: list[split.Part], name: str
    ) -> None:
        self.case, self.space, self.plan, self.goal, self.parts = case, space, plan, goal, parts
        self.folder, self.name = folder, name
        optuna: Any = require_extra("optuna", "search", "caffe search")
        self._optuna = optuna
        self._optuna.logging.set_verbosity(self._optuna.logging.ERROR)
        self._leases: dict[int, Lease] = {}
        with self._locked():
            self._open()

    def _open(self) -> None:
        """Open or create the study. Its fixed name gives the same brackets of Hyperband in every run."""
        optuna, direction = self._optuna, "maximize" if self.goal.sign > 0 else "minimize"
        settings = {
            "direction": direction,
            "sampler": optuna.samplers.RandomSampler(seed=self.plan.seed),
            "pruner": self._pruner(),
        }
        if self.plan.storage:
            self.storage = storage.open_database(optuna, self.plan.storage)
            place = self.folder / f"{self.name}.study"
            self.study, new = storage.create(optuna, self.storage, place, self.name, **settings)
        else:
            self.storage = storage.journal(optuna, self.folder / "journal.log")
            new = self.name not in optuna.get_all_study_names(self.storage)
            self.study = optuna.create_study(
                storage=self.storage, study_name=self.name, load_if_exists=True, **settings
            )
        plan = {"space": repr(self.space), "method": self.plan.method, "steps": self.plan.steps, "seed": self.plan.seed}
        if new:
            self.study.set_user_attr("plan", plan)
            for point in self._grid() if self.plan.method == "grid" else ():
                self.study.enqueue_trial(point)
        elif self.study.user_attrs.get("plan", plan) != plan:
            raise SolverError(
                f"{self.folder}: contains a search with another space or other settings; give another folder by -out"
            )

    def _pruner(self) -> Any:
        pruners, least = self._optuna.pruners, max(1, self.plan.steps // 10)
        if self.plan.pruner == "median":
            return pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=least)
        if self.plan.pruner == "hyperband":
            return pruners.HyperbandPruner(min_resource=least, max_resource=max(least, self.plan.steps))
        return pruners.NopPruner()

    def _sampler(self, number: int) -> Any:
        """Return the sampler of a trial. Its seed is derived from the trial's number, whichever process starts it."""
        seed = int(np.random.SeedSequence([self.plan.seed, number]).generate_state(1)[0])
        if self.plan.method == "tpe":
            return self._optuna.samplers.TPESampler(
                seed=seed, constant_liar=True, n_startup_trials=min(10, 1 + self.plan.trials // 3)
            )
        return self._optuna.samplers.RandomSampler(seed=seed)

    def _grid(self) -> list[dict[str, Any]]:
        """Return the points of the grid, in random order."""
        names = [dimension.name for dimension in self.space.dimensions]
        points = list(itertools.product(*(dimension.grid() for dimension in self.space.dimensions)))
        order = np.random.default_rng(self.plan.seed).permutation(len(points))
        return [dict(zip(names, points[index], strict=True)) for index in order]

    @property
    def trials(self) -> list[Any]:
        """All trials, in the order of their numbers."""
        return list(self.study.get_trials(deepcopy=False))

    @property
    def wanted(self) -> int:
        """The total number of trials."""
        return len(self._grid()) if self.plan.method == "grid" else self.plan.trials

    @property
    def ranked(self) -> list[Any]:
        """The completed trials, best first."""
        done = [trial for trial in self.trials if trial.state == self._optuna.trial.TrialState.COMPLETE]
        return sorted(done, key=lambda trial: (-self.goal.sign * trial.value, trial.number))

    @property
    def title(self) -> str:
        """Return the display name of a trial. Trials of a second, finer search have a name of their own."""
        return "trial" if self.name == "search" else f"{self.name} trial"

    def change_of(self, trial: Any) -> Change:
        """Return the change of solver and net that a trial tries."""
        return self.space.change(self.case, trial.params)

    def folder_of(self, number: int) -> Path:
        """Return the folder of a trial."""
        return self.folder / self.name / f"{number:04d}"

    def run(self, tell: Callable[[Search, int], None]) -> None:
        """Run trials until all are done, including those of other processes.

        `tell` is called for each change of a trial's state.
        """
        while True:
            with self._locked():
                trial = self._left_behind() or self._new()
            if trial is not None:
                try:
                    self._train(trial, tell)
                finally:
                    self._leases.pop(trial.number).release()
                tell(self, trial.number)
            elif all(each.state.is_finished() for each in self.trials):
                return
            else:
                time.sleep(_POLL)

    def close(self) -> None:
        """Release the trials that this process still holds, which happens only after an error."""
        for held in self._leases.values():
            held.release()
        self._leases.clear()

    # -- who runs what ---------------------------------------------------------------------------------------------

    def _locked(self) -> Any:
        return locked(self.folder / f"{self.name}.lock")

    def _left_behind(self) -> Any:
        """Return a trial whose process has ended, with its values."""
        for frozen in self.trials:
            if frozen.state == self._optuna.trial.TrialState.RUNNING and self._take(frozen.number):
                study = self.storage.get_study_id_from_name(self.study.study_name)
                number = self.storage.get_trial_id_from_study_id_trial_number(study, frozen.number)
                self.study.sampler = self._sampler(frozen.number)
                return self._drawn(self._optuna.trial.Trial(self.study, number))
        return None

    def _new(self) -> Any:
        """Create a new trial; None if there are enough."""
        waiting = self._optuna.trial.TrialState.WAITING
        begun = [trial for trial in self.trials if trial.state != waiting]
        if len(begun) >= self.wanted:
            return None
        self.study.sampler = self._sampler(len(begun))
        trial = self.study.ask()
        self._take(trial.number)
        return self._drawn(trial)

    def _drawn(self, trial: Any) -> Any:
        for dimension in self.space.dimensions:
            dimension.suggest(trial)
        return trial

    def _take(self, number: int) -> bool:
        held = Lease.take(self.folder_of(number) / "lease") if number not in self._leases else None
        if held is not None:
            self._leases[number] = held
        return held is not None

    # -- what a trial is -------------------------------------------------------------------------------------------

    def _train(self, trial: Any, tell: Callable[[Search, int], None]) -> None:
        """Train a trial and report to the study. Its value is the mean over the folds."""
        state = self._optuna.trial.TrialState
        known = set(self.trials[trial.number].intermediate_values)

        def heard(iteration: int, value: float) -> bool:
            if iteration not in known:
                known.add(iteration)
                trial.report(value, iteration)
            tell(self, trial.number)
            return bool(trial.should_prune())

        values: list[float] = []
        try:
            for fold, part in enumerate(self.parts):
                outcome = self._run(trial, fold, part, heard if fold == 0 else lambda *_: False)
                values.append(outcome.value)
                if outcome.stopped:
                    trial.set_user_attr("stopped", outcome.stopped)
                    self.study.tell(trial.number, state=state.PRUNED)
                    return
        except CaffeError as error:
            trial.set_user_attr("error", str(error))
            self.study.tell(trial.number, state=state.FAIL)
            return
        trial.set_user_attr("folds", values)
        self.study.tell(trial.number, math.fsum(values) / len(values))

    def _run(self, trial: Any, fold: int, part: split.Part, heard: runs.Heard) -> runs.Outcome:
        folder = self.folder_of(trial.number) / f"fold{fold}"
        change = self.change_of(trial)
        param = runs.parameters(self.case, change, part, self.plan.seed, self.plan.steps, folder)
        return runs.train(param, self.goal, heard, folder)
