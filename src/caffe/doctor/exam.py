"""One examination: the case, what was measured of it so far, and the replay of changes."""

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
"""The difference in quality from which on a change has helped."""
_MOST = 0.4
"""The part of what a run is short of that a change must bring where it brings less than `_GAIN`."""
_HEALTHY = 0.85
_LEARNS = 0.5
_AS_GOOD, _PATIENCE, _LONGEST = 0.9, 0.6, 20
_LONG = 5
"""How many times as long a second comparison is."""


@dataclass
class Exam:
    """What the checks work with. `budget` is in seconds.

    All that costs time is measured when a check first asks for it. `steps` is the length of a trial.
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
        """What passed through each layer at the first step."""
        return self._facts[0]

    @property
    def blobs(self) -> list[BlobFacts]:
        """The learnable blobs at the first step."""
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
        """A part of the test data; None where nothing is tested."""
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
        """The names of the data layers' tops that are no labels."""
        labels = {self.head.labels} if self.head else set()
        nodes = [node for node in self.case.train.nodes if issubclass(node.kind, Source)]
        return [top for node in nodes for top in node.spec.top[:1] if top not in labels]

    # -- trials ----------------------------------------------------------------------------------------------------

    @cached_property
    def trials(self) -> Trials:
        return Trials(self.case, self.budget, self.begin)

    @cached_property
    def steps(self) -> int:
        """The steps of a trial: as many as let about twenty trials fit into the time."""
        probe = self.trials.run(None, _LEAST_STEPS)
        if probe.failed is not None or probe.error or not probe.work:
            return _LEAST_STEPS
        most = self.budget / 15 / (probe.work / _LEAST_STEPS)
        return next((steps for steps in (_MOST_STEPS, _FEW_STEPS) if steps <= most), _LEAST_STEPS)

    @cached_property
    def base(self) -> Outcome:
        """The run as it is."""
        return self.trials.run(None, self.steps)

    @cached_property
    def long(self) -> Outcome:
        """The run as it is over more steps, for nets that begin slowly; `base` where that shows enough."""
        if self.healthy or self.base.failed is not None or self.base.error:
            return self.base
        left = self.trials.left
        a_step = self.trials.expected_seconds(self.steps) / self.steps
        steps = min(_LONG * self.steps, int(left / 4 / a_step)) if a_step else self.steps
        return self.trials.run(None, steps) if steps > self.steps else self.base

    @property
    def learns(self) -> bool:
        """Whether the run as it is gets on, if not well."""
        return self.base.quality >= _LEARNS or self.long.quality >= _LEARNS

    @property
    def healthy(self) -> bool:
        """Whether no change can improve the run by much."""
        return self.base.quality >= _HEALTHY

    def proof(self, change: Change, patient: bool = True) -> Proof | None:
        """What the replay of a change shows; None where there is no time for it, or it does not run.

        `patient` allows for a second comparison over more steps, for runs that begin slowly.
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
        # what begins slowly, with the change or without, is compared over more steps
        steps = len(self.long.losses)
        later = self.trials.run(change, steps) if self.trials.time_for(steps) else after
        return proof if later is after or later.error else self._compared(change, self.long, later, before)

    @staticmethod
    def _compared(change: Change, before: Outcome, after: Outcome, quality: float) -> Proof:
        gain = after.quality - quality
        return Proof(f"as it is: {before.text}", f"{change.text}: {after.text}", gain, after.quality, len(after.losses))

    def long_proof(self, change: Change) -> Proof | None:
        """The replay over more steps, for changes whose effect takes long; also of runs that begin well."""
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
        """A folder for files of this examination; `close` removes it."""
        return Path(tempfile.mkdtemp(prefix="caffe_doctor_"))

    def close(self) -> None:
        """Remove what was written."""
        if "folder" in self.__dict__:
            shutil.rmtree(self.folder, ignore_errors=True)

    def kept(self, items: int, plain: bool) -> Kept | None:
        """The change that keeps some items in memory; None where that cannot be done."""
        return keep(self.case.train, self.sample.arrays, items, plain, self.folder)

    @cached_property
    def by_heart(self) -> ByHeart:
        """Whether the net learns twenty items by heart."""
        kept, steps = self.kept(ITEMS, plain=True), 2 * self.steps
        if kept is None or not self.trials.time_for(steps):
            return ByHeart(None)
        return ByHeart(self.trials.run(kept, steps), kept.items)

    @cached_property
    def rates(self) -> Rates | None:
        """The range test, around the rate at which updates are of the usual size."""
        given = float(self.case.param.base_lr)
        ratios = [blob.ratio for blob in self.blobs if blob.index == 0 and blob.update and math.isfinite(blob.ratio)]
        largest, steps = max(ratios, default=0.0), _MOST_STEPS
        if largest <= 0 or given <= 0 or self.base.error or not self.trials.time_for(steps):
            return None
        low, high = given * 1e-6 / largest, given * 1.0 / largest
        self.swept = growing(low, high, steps)
        return read_rates(self.trials.run(self.swept, steps), low, high, steps, given)

    def prove(self, finding: Finding) -> Finding:
        """Replay the finding's change; a finding whose change does not help is a note, unless its fact is enough."""
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
        """Measure a small gain with other seeds, too; the middle one counts."""
        change, steps = finding.change, proof.steps
        if change is None or not steps or proof.gain >= 2 * _GAIN or not self.trials.time_for(4 * steps):
            return
        pairs = [(self.trials.run(None, steps, each), self.trials.run(change, steps, each)) for each in (1, 2)]
        gains = sorted([proof.gain, *(after.quality - before.quality for before, after in pairs)])
        finding.proof = replace(proof, gain=gains[1])
        if not self.helps(finding.proof):
            finding.severity = Severity.NOTE

    def _let_pass(self, finding: Finding, proof: Proof) -> None:
        """Make a note of what the run overcomes by itself: it comes as far as with the change, only later."""
        later = self.patient
        if later.quality >= max(_HEALTHY, _AS_GOOD * proof.quality):
            finding.severity = Severity.NOTE
            finding.message += f"; the run overcomes it by itself: {later.text}"

    @cached_property
    def patient(self) -> Outcome:
        """The run as it is over as many steps as there is time for, and at most its own."""
        a_step = self.trials.expected_seconds(self.steps) / self.steps
        left = _PATIENCE * self.trials.left
        steps = min(_LONGEST * self.steps, int(left / a_step) if a_step else 0, self.case.param.max_iter or 1 << 30)
        enough = self.base.failed is None and not self.base.error and steps > len(self.long.losses)
        return self.trials.run(None, steps) if enough else self.long

    @staticmethod
    def helps(proof: Proof | None) -> bool:
        """Whether a proof shows that the change made the run better: by much, or by most of what was missing."""
        if proof is None:
            return False
        missing = 1 - (proof.quality - proof.gain)
        return proof.gain >= _GAIN or (proof.gain >= _GAIN / 2 and proof.gain >= _MOST * missing)

    def first_that_helps(self, changes: list[Change]) -> tuple[Change, Proof] | None:
        """The change with the best result, tried in this order until one makes the run healthy."""
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
