"""`label-range`, `class-imbalance`, `label-order`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from caffe.doctor.check import Check, Fault, Stage, certain
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity
from caffe.doctor.view import Node

_RARE = 0.05
"""Classes are imbalanced if the rarest has less than this fraction of an even share."""
_MOST = 0.9
_HALF = 0.5


class Labels(Check):
    """Checks the labels of classifiers."""

    faults = {
        "label-range": Fault(
            "a label is not a class of the net", "compare the largest label with the last layer's `num_output`"
        ),
        "class-imbalance": Fault("some class is very rare", "count the labels"),
        "label-order": Fault("each batch contains a single class", "print the labels of the first batches"),
    }
    stage = Stage.DATA

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        for node in exam.case.train.nodes:
            if not node.kind.reads_classes or node.kind.is_score or len(node.spec.bottom) < 2:
                continue
            labels = exam.sample.arrays.get(node.spec.bottom[1])
            source = next((other for other in exam.case.train.nodes if node.spec.bottom[1] in other.spec.top), None)
            if labels is None or source is None or not labels.size:
                continue
            shape = exam.shapes.get(node.spec.bottom[0], ())
            axis = node.kind.class_axis(node.spec)
            classes = shape[axis] if len(shape) > 1 and -len(shape) <= axis < len(shape) else 0
            yield from self._look(exam, node, source, labels, classes)
            return

    def _look(self, exam: Exam, node: Node, source: Node, labels: np.ndarray, classes: int) -> Iterator[Finding | Line]:
        flat = labels.ravel()
        ignored = node.spec.loss_param.ignore_label if node.spec.loss_param.HasField("ignore_label") else None
        flat = flat[flat != ignored] if ignored is not None else flat
        wrong = flat[(flat < 0) | (flat >= classes) | (flat != np.round(flat))] if classes else flat[:0]
        values, counts = np.unique(flat, return_counts=True)
        yield Line(
            "labels",
            f"{len(values)} classes, {values[0]:g} to {values[-1]:g}; {counts.min():,} to {counts.max():,} items each",
        )
        if len(wrong):
            yield certain(
                exam,
                source,
                "label-range",
                f'layer "{source.name}" gives label {wrong[0]:g}; the outputs are classes 0 to {classes - 1}',
                f"number the classes from 0, or give the last layer {int(values.max()) + 1} outputs",
                f"{len(wrong):,} of {len(flat):,} labels",
                Severity.ERROR,
            )
            return
        yield from self._balance(exam, source, values, counts)
        yield from self._order(exam, source, flat, len(values))

    @staticmethod
    def _balance(exam: Exam, source: Node, values: np.ndarray, counts: np.ndarray) -> Iterator[Finding]:
        even, most = counts.sum() / len(values), float(counts.max() / counts.sum())
        lopsided = most > _HALF and len(values) > 2 and counts.min() < 4 * _RARE * even
        if len(values) > 1 and exam.sample.whole and (most > _MOST or counts.min() < _RARE * even or lopsided):
            yield certain(
                exam,
                source,
                "class-imbalance",
                f"{100 * most:.0f} % of the labels are class {values[counts.argmax()]:g}, and {counts.min():,} are "
                f"class {values[counts.argmin()]:g}",
                "weight the classes (InfogainLoss), or repeat the rare ones in the database",
                f"{counts.min():,} to {counts.max():,} items each",
            )

    @staticmethod
    def _order(exam: Exam, source: Node, flat: np.ndarray, classes: int) -> Iterator[Finding]:
        if len(flat) < 4 * exam.sample.batch or exam.sample.batch < 2:
            return
        same = float((flat[1:] == flat[:-1]).mean())
        by_chance = float(((np.unique(flat, return_counts=True)[1] / len(flat)) ** 2).sum())
        if same > 0.9 and (by_chance < 0.8 or (classes == 1 and not exam.sample.whole)):
            yield certain(
                exam,
                source,
                "label-order",
                "the items are sorted by class: most batches contain a single class",
                "shuffle them: caffe convert_imageset -shuffle, or shuffle: true in the data layer",
                f"{100 * same:.0f} % of the items have the previous item's label, by chance {100 * by_chance:.0f} %",
            )
