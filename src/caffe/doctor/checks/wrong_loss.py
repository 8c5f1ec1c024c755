"""`wrong-loss`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from caffe.doctor.changes import Change, SetField
from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Proof, Severity
from caffe.doctor.view import Node
from caffe.layers.loss import EuclideanLoss, SigmoidCrossEntropyLoss


class WrongLoss(Check):
    """Compares the values that a loss expects with the layers that produce its bottoms."""

    faults = {
        "wrong-loss": Fault(
            "the loss does not suit its bottoms", "it expects probabilities or quantities, but gets other values"
        ),
    }
    stage = Stage.DATA

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        view = exam.case.train
        for node in view.nodes:
            if node.kind.expects_probabilities:
                maker = view.maker(node, node.spec.bottom[0])
                if maker is not None and not maker.kind.probabilities:
                    fact = f'"{maker.name}" ({maker.type}) gives unbounded numbers'
                    yield self._finding(exam, node, "expects probabilities", fact)
            elif node.is_a(EuclideanLoss, SigmoidCrossEntropyLoss) and len(node.spec.bottom) == 2:
                labels = exam.sample.arrays.get(node.spec.bottom[1])
                if labels is not None and self._numbers_of_classes(labels):
                    fact = f"compares numbers, but the labels are classes 0 to {int(labels.max())}"
                    yield self._classes(
                        exam, node, self._finding(exam, node, fact, "a class is not a quantity"), labels
                    )

    @staticmethod
    def _classes(exam: Exam, node: Node, finding: Finding, labels: np.ndarray) -> Finding:
        """Yield the finding with a change that also gives the last layer one output per class, and its proof.

        Both runs are compared by the share of correct answers; before the change the outputs are rounded.
        """
        maker = next((other for other in exam.case.train.before(node) if other.learned), None)
        if maker is None or exam.base.error:
            return finding
        classes = int(labels.max()) + 1
        outputs = SetField(maker.index, f"{maker.options}.num_output", str(classes))
        edits = (SetField(node.index, "type", '"SoftmaxWithLoss"'), outputs)
        change = finding.change = Change(f'"{node.name}" of type SoftmaxWithLoss over {classes} outputs', edits)
        after = exam.trials.run(change, exam.steps)
        before = exam.base.right if math.isfinite(exam.base.right) else 0.0
        if not after.error:
            gain = (after.right - before) / max(1e-6, 1 - before)
            text = f"unchanged: {100 * before:.0f} % correct when rounded, after {exam.steps} steps"
            finding.proof = Proof(text, f"{change.text}: {after.text}", gain, after.quality)
        return finding

    @staticmethod
    def _numbers_of_classes(labels: np.ndarray) -> bool:
        flat = labels.reshape(len(labels), -1)
        whole = flat.shape[1] == 1 and bool((flat == np.round(flat)).all())
        return whole and 3 <= len(np.unique(flat)) <= 1000 and float(flat.min()) >= 0

    @staticmethod
    def _finding(exam: Exam, node: Node, fact: str, evidence: str) -> Finding:
        return Finding(
            "wrong-loss",
            Severity.WARNING,
            f'layer "{node.name}" ({node.type}) {fact}',
            'use type: "SoftmaxWithLoss", over a layer with one output for each class',
            evidence,
            layer=node.name,
            place=exam.case.place(node.index, "type"),
            change=Change(
                f'"{node.name}" of type SoftmaxWithLoss', (SetField(node.index, "type", '"SoftmaxWithLoss"'),)
            ),
        )
