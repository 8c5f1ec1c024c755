"""One examination: the case, the measurements so far, and the trials of changes."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from caffe.doctor.case import Case, close, quiet
from caffe.doctor.changes import Change
from caffe.doctor.finding import Finding, Proof, Severity
from caffe.doctor.head import Head, find_head
from caffe.doctor.kept import ITEMS, ByHeart, Kept, keep
from caffe.doctor.measure import BlobFacts, LayerFacts, measure
from caffe.doctor.range_test import Rates, growing, read_rates
from caffe.doctor.sample import Sample, read_sample
from caffe.doctor.trial import Outcome, Trials
from caffe.layers.base import Source

__all__ = ["Exam"]

_LEAST_STEPS, _FEW_STEPS, _MOST_STEPS = 30, 60, 100
_GAIN = 0.15
"""A change helps if it raises the quality by at least this."""
_MOST = 0.4
"""A smaller gain also helps if it is this part of what the run lacks."""
_HEALTHY = 0.85
_LEARNS = 0.5
_AS_GOOD, _PATIENCE, _LONGEST = 0.9, 0.6, 20
_LONG = 5
"""How many times longer a second comparison runs."""


@dataclass
class Exam:
    """The interface of the checks. `budget` is in seconds.

    Expensive measurements are made when a check first asks for them. `steps` is the length of a trial.
    """

    case: Case
    budget: float = 60.0
    begin: tuple[float, float] = field(default_factory=lambda: (time.monotonic(), time.process_time()))
    swept: Change | None = None
    """The change of the range test."""

    # -- the net ---------------------------------------------------------------------------------------------------

    @cached_property
    def _facts(self) -> tuple[list[LayerFacts], list[BlobFacts]]:
        solver = self.case.solver(seed=self.trials.seed)
        try:
            with quiet():
                return measure(solver)
        finally:
            close(solver)

    @property
    def layers(self) -> list[LayerFacts]:
        """Statistics of each layer at the first step."""
        return self._facts[0]

    @property
    def blobs(self) -> list[BlobFacts]:
        """Statistics of the learnable blobs at the first step."""
        return self._facts[1]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the train net's blobs."""
        solver = self.case.solver(seed=self.trials.seed)
        try:
            return {name: tuple(blob.shape) for name, blob in solver.net.blobs.items()}
        finally:
            close(solver)

    @cached_property
    def head(self) -> Head | None:
        return find_head(self.case.train)

    # -- the data --------------------------------------------------------------------------------------------------

    @cached_property
    def sample(self) -> Sample:
        """A part of the training data."""
        return self._sample(test=False)

    @cached_property
    def test_sample(self) -> Sample | None:
        """A part of the test data; None if there is no test net."""
        return self._sample(test=True) if self.case.tests else None

    def _sample(self, test: bool) -> Sample:
        solver = self.case.solver(seed=self.trials.seed)
        try:
            net = solver.test_nets[0] if test else solver.net
            with quiet():
                return read_sample(net, seconds=min(10.0, self.budget / 12))
        finally:
            close(solver)

    def inputs(self) -> list[str]:
        """The names of the data layers' tops, without labels."""
        labels = {self.head.labels} if self.head else set()
        nodes = [node for node in self.case.train.nodes if issubclass(node.kind, Source)]
        return [top for node in nodes for top in node.spec.top[:1] if top not in labels]

    # -- trials ----------------------------------------------------------------------------------------------------

    @cached_property
    def trials(self) -> Trials:
        return Trials(self.case, self.budget, self.begin)

    @cached_property
    def steps(self) -> int:
        """The number of steps of a trial, chosen so that about twenty trials fit into the budget."""
        probe = self.trials.run(None, _LEAST_STEPS)
        if probe.failed is not None or probe.error or not probe.work:
            return _LEAST_STEPS
        most = self.budget / 15 / (probe.work / _LEAST_STEPS)
        return next((steps for steps in (_MOST_STEPS, _FEW_STEPS) if steps <= most), _LEAST_STEPS)

    @cached_property
    def base(self) -> Outcome:
        """The outcome of the unchanged run."""
        return self.trials.run(None, self.steps)

    @cached_property
    def long(self) -> Outcome:
        """The outcome of the unchanged run over more steps, for nets that start slowly; `base` if that is enough."""
        if self.healthy or self.base.failed is not None or self.base.error:
            return self.base
        left = self.trials.left
        a_step = self.trials.expected_seconds(self.steps) / self.steps
        steps = min(_LONG * self.steps, int(left / 4 / a_step)) if a_step else self.steps
        return self.trials.run(None, steps) if steps > self.steps else self.base

    @property
    def learns(self) -> bool:
        """Whether the unchanged run learns at all."""
        return self.base.quality >= _LEARNS or self.long.quality >= _LEARNS

    @property
    def healthy(self) -> bool:
        """Whether no change can improve the run much."""
        return self.base.quality >= _HEALTHY

    def proof(self, change: Change, patient: bool = True) -> Proof | None:
        """Return the result of a trial of a change; None if there is no time for it, or if it does not run.

        `patient` allows a second comparison over more steps, for runs that start slowly.
        """
        if self.healthy or not self.trials.time_for(self.steps):
            return None
        after = self.trials.run(change, self.steps)
        if after.error:
            return None
        before = max(self.base.quality, self.long.quality)
        proof = self._compared(change, self.base, after, before)
        if not patient or self.long is self.base or (self.helps(proof) and not self.learns):
            return proof
        # a run that starts slowly, with or without the change, is compared over more steps
        steps = len(self.long.losses)
        later = self.trials.run(change, steps) if self.trials.time_for(steps) else after
        return proof if later is after or later.error else self._compared(change, self.long, later, before)

    @staticmethod
    def _compared(change: Change, before: Outcome, after: Outcome, quality: float) -> Proof:
        gain = after.quality - quality
        return Proof(f"before: {before.text}", f"{change.text}: {after.text}", gain, after.quality, len(after.losses))

    def long_proof(self, change: Change) -> Proof | None:
        """Return the result of a trial over more steps, for changes whose effect takes long."""
        steps = _LONG * self.steps
        if self.base.failed is not None or not self.trials.time_for(2 * steps):
            return self.proof(change)
        before, after = self.trials.run(None, steps), self.trials.run(change, steps)
        if after.error:
            return None
        proof = self._compared(change, before, after, before.quality)
        return proof if self.helps(proof) else self.proof(change)

    # -- figures ---------------------------------------------------------------------------------------------------

    @cached_property
    def folder(self) -> Path:
        """A folder for temporary files of this examination; `close` removes it."""
        return Path(tempfile.mkdtemp(prefix="caffe_doctor_"))

    def close(self) -> None:
        """Remove the temporary files."""
        if "folder" in self.__dict__:
            shutil.rmtree(self.folder, ignore_errors=True)

    def kept(self, items: int, plain: bool) -> Kept | None:
        """The change that keeps some items in memory; None if that is not possible."""
        return keep(self.case.train, self.sample.arrays, items, plain, self.folder)

    @cached_property
    def by_heart(self) -> ByHeart:
        """The result of overfitting twenty items."""
        kept, steps = self.kept(ITEMS, plain=True), 2 * self.steps
        if kept is None or not self.trials.time_for(steps):
            return ByHeart(None)
        return ByHeart(self.trials.run(kept, steps), kept.items)

    @cached_property
    def rates(self) -> Rates | None:
        """The range test, around the rate at which updates have the usual size."""
        given = float(self.case.param.base_lr)
        ratios = [blob.ratio for blob in self.blobs if blob.index == 0 and blob.update and math.isfinite(blob.ratio)]
        largest, steps = max(ratios, default=0.0), _MOST_STEPS
        if largest <= 0 or given <= 0 or self.base.error or not self.trials.time_for(steps):
            return None
        low, high = given * 1e-6 / largest, given * 1.0 / largest
        self.swept = growing(low, high, steps)
        return read_rates(self.trials.run(self.swept, steps), low, high, steps, given)

    def prove(self, finding: Finding) -> Finding:
        """Verify a finding by a trial of its change. If the change does not help, the finding becomes a note, unless
        its fact is certain.
        """
        if finding.change is not None and finding.proof is None:
            finding.proof = self.proof(finding.change)
        if not finding.certain and not finding.symptom and not self.helps(finding.proof):
            finding.severity = Severity.NOTE
        if finding.proof is not None and finding.severity > Severity.NOTE and not finding.certain:
            self._repeat(finding, finding.proof)
        if finding.may_pass and finding.proof is not None and finding.severity > Severity.NOTE:
            self._let_pass(finding, finding.proof)
        return finding

    def _repeat(self, finding: Finding, proof: Proof) -> None:
        """Repeat a small gain with other seeds; the median counts."""
        change, steps = finding.change, proof.steps
        if change is None or not steps or proof.gain >= 2 * _GAIN or not self.trials.time_for(4 * steps):
            return
        pairs = [(self.trials.run(None, steps, each), self.trials.run(change, steps, each)) for each in (1, 2)]
        gains = sorted([proof.gain, *(after.quality - before.quality for before, after in pairs)])
        finding.proof = replace(proof, gain=gains[1])
        if not self.helps(finding.proof):
            finding.severity = Severity.NOTE

    def _let_pass(self, finding: Finding, proof: Proof) -> None:
        """Turn a finding into a note if the unchanged run reaches the same quality, only later."""
        later = self.patient
        if later.quality >= max(_HEALTHY, _AS_GOOD * proof.quality):
            finding.severity = Severity.NOTE
            finding.message += f"; the run recovers from it by itself: {later.text}"

    @cached_property
    def patient(self) -> Outcome:
        """The outcome of the unchanged run over as many steps as there is time for, at most its own number."""
        a_step = self.trials.expected_seconds(self.steps) / self.steps
        left = _PATIENCE * self.trials.left
        steps = min(_LONGEST * self.steps, int(left / a_step) if a_step else 0, self.case.param.max_iter or 1 << 30)
        enough = self.base.failed is None and not self.base.error and steps > len(self.long.losses)
        return self.trials.run(None, steps) if enough else self.long

    @staticmethod
    def helps(proof: Proof | None) -> bool:
        """Whether a trial shows that the change helped: by a large gain, or by most of what was missing."""
        if proof is None:
            return False
        missing = 1 - (proof.quality - proof.gain)
        return proof.gain >= _GAIN or (proof.gain >= _GAIN / 2 and proof.gain >= _MOST * missing)

    def first_that_helps(self, changes: list[Change]) -> tuple[Change, Proof] | None:
        """Return the best of these changes. They are tried in order until one makes the run healthy."""
        best: tuple[Change, Proof] | None = None
        for change in changes:
            proof = self.proof(change, patient=False)
            if proof is None or not self.helps(proof):
                continue
            if best is None or proof.gain > best[1].gain + 0.05:
                best = change, proof
            if self.trials.run(change, self.steps).quality >= _HEALTHY:
                break
        if best is None and changes and not self.healthy:
            change = max(changes, key=lambda each: self.trials.run(each, self.steps).quality)
            proof = self.proof(change)
            best = (change, proof) if proof is not None and self.helps(proof) else None
        return best
