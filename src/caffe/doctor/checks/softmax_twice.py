"""`softmax-twice`."""

from __future__ import annotations

from collections.abc import Iterator

from caffe.doctor.changes import Change, RemoveLayer, SetInputs
from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity
from caffe.layers.activation import Sigmoid
from caffe.layers.loss import SigmoidCrossEntropyLoss
from caffe.layers.softmax import Softmax, SoftmaxWithLoss

_TWICE = ((SoftmaxWithLoss, Softmax), (SigmoidCrossEntropyLoss, Sigmoid))
"""Losses, with the layer type whose function they apply."""


class SoftmaxTwice(Check):
    """Looks for a loss that applies a function that was already applied to its bottom."""

    faults = {
        "softmax-twice": Fault(
            "the loss applies a softmax that was already applied",
            "the bottom of SoftmaxWithLoss comes from a Softmax layer",
        ),
    }
    stage = Stage.FILES

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        view = exam.case.train
        for node in view.nodes:
            applied = [function for loss, function in _TWICE if node.is_a(loss)]
            maker = view.maker(node, node.spec.bottom[0]) if applied else None
            if maker is None or not maker.is_a(*applied):
                continue
            alone = len(view.readers(maker)) == 1 and len(exam.case.test.nodes) > 0 and maker.in_place
            bottoms = (maker.spec.bottom[0], *node.spec.bottom[1:])
            edit = RemoveLayer(maker.index) if alone else SetInputs(node.index, bottoms)
            yield Finding(
                "softmax-twice",
                Severity.WARNING,
                f'layer "{node.name}" ({node.type}) applies a {maker.type} to its bottom, which layer "{maker.name}" '
                "has already applied: the gradient becomes small",
                f'let "{node.name}" read "{bottoms[0]}" instead of "{node.spec.bottom[0]}"',
                f"{maker.type} is applied twice before one loss",
                layer=node.name,
                place=exam.case.place(node.index, "bottom"),
                change=Change(f'"{node.name}" reads "{bottoms[0]}"', (edit,)),
                certain=True,
            )
