"""`wrong-loss`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from caffe.doctor.changes import Change, SetField
from caffe.doctor.check import Check, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity
from caffe.doctor.view import Node


class WrongLoss(Check):
    """Compares what a loss expects of its bottoms with what makes them."""

    codes = ("wrong-loss",)
    stage = Stage.DATA

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        view = exam.case.train
        for node in view.nodes:
            if node.type == "MultinomialLogisticLoss":
                maker = view.maker(node, node.spec.bottom[0])
                if maker is not None and maker.type != "Softmax":
                    fact = f'"{maker.name}" ({maker.type}) gives any numbers'
                    yield self._finding(exam, node, "expects probabilities", fact)
            elif node.type in ("EuclideanLoss", "SigmoidCrossEntropyLoss") and len(node.spec.bottom) == 2:
                labels = exam.sample.arrays.get(node.spec.bottom[1])
                if labels is not None and self._numbers_of_classes(labels):
                    fact = f"compares numbers, but the labels are classes 0 to {int(labels.max())}"
                    yield self._finding(exam, node, fact, "a class is no quantity")

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
