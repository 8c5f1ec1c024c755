"""`dropout-misplaced`, `dropout-too-strong`."""

from __future__ import annotations

from collections.abc import Iterator

from caffe.doctor.changes import Change, RemoveLayer, SetField
from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity
from caffe.doctor.view import Node
from caffe.layers import activation

_STRONG = 0.8


class Dropout(Check):
    """Checks the ratios of Dropout layers, and whether one is applied to the outputs or before a BatchNorm."""

    faults = {
        "dropout-misplaced": Fault(
            "dropout is applied to the net's outputs", "a Dropout layer is between the last layer and the loss"
        ),
        "dropout-too-strong": Fault("too few units remain", "`dropout_ratio` is far above 0.5"),
    }
    stage = Stage.FILES

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        view = exam.case.train
        for node in view.nodes:
            if not node.is_a(activation.Dropout):
                continue
            ratio = node.spec.dropout_param.dropout_ratio
            readers = view.readers(node)
            losses = [other for other in readers if other.kind.default_loss_weight or any(other.spec.loss_weight)]
            if losses and node.spec.top[0] == losses[0].spec.bottom[0]:
                yield self._misplaced(exam, node, f'lies between the outputs and the loss "{losses[0].name}"')
            elif ratio >= _STRONG:
                yield Finding(
                    "dropout-too-strong",
                    Severity.WARNING,
                    f'layer "{node.name}" drops {100 * ratio:g} % of its bottom',
                    f"lower dropout_ratio from {ratio:g} to 0.5",
                    "0.2 to 0.5 is usual",
                    layer=node.name,
                    place=exam.case.place(node.index, "dropout_param.dropout_ratio"),
                    change=Change(
                        f'dropout_ratio 0.5 in "{node.name}"',
                        (SetField(node.index, "dropout_param.dropout_ratio", "0.5"),),
                    ),
                    certain=ratio >= 0.95,
                )

    @staticmethod
    def _misplaced(exam: Exam, node: Node, fact: str) -> Finding:
        return Finding(
            "dropout-misplaced",
            Severity.WARNING,
            f'layer "{node.name}" (Dropout) {fact}: the loss then uses outputs that were set to 0',
            "remove it, or move it below the last learned layer",
            "Dropout belongs between learned layers",
            layer=node.name,
            place=exam.case.place(node.index),
            change=Change(f'without "{node.name}"', (RemoveLayer(node.index),)),
            certain=True,
        )
