"""`no-nonlinearity`."""

from __future__ import annotations

from collections.abc import Iterator

from caffe.doctor.changes import AddLayer, Change
from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity
from caffe.doctor.view import Node, View
from caffe.layers.activation import Dropout, Power
from caffe.layers.dense import Bias, InnerProduct, Scale
from caffe.layers.normalization import BatchNorm
from caffe.layers.shape import Flatten, Reshape, Split

_LINEAR = (Bias, BatchNorm, Dropout, Flatten, InnerProduct, Power, Reshape, Scale, Split)


class NoNonlinearity(Check):
    """Looks for two consecutive fully connected layers, which together are equal to a single linear layer."""

    faults = {
        "no-nonlinearity": Fault(
            "two linear layers are equal to a single one", "no ReLU, Sigmoid or TanH between them"
        ),
    }
    stage = Stage.START

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        view = exam.case.train
        pairs = [(node, above) for node in view.nodes if (above := self._above(view, node)) is not None]
        if not pairs:
            return
        blocks = [
            AddLayer(node.index, f'layer {{ name: "{node.name}_relu" type: "ReLU" bottom: "{top}" top: "{top}" }}')
            for node, _ in pairs
            for top in [node.spec.top[0]]
        ]
        first, second = pairs[0]
        yield Finding(
            "no-nonlinearity",
            Severity.WARNING,
            f'layers "{first.name}" and "{second.name}" have no nonlinearity between them: together they can '
            "compute no more than one linear layer",
            f'put a ReLU after "{first.name}"',
            f"{len(pairs)} pair(s) of linear layers",
            layer=first.name,
            place=exam.case.place(first.index),
            certain=True,
            change=Change(f"ReLU after {', '.join(node.name for node, _ in pairs)}", tuple(blocks)),
        )

    @staticmethod
    def _above(view: View, node: Node) -> Node | None:
        """Return the fully connected layer that directly reads the top of another, unless a bottleneck is intended."""
        if not node.is_a(InnerProduct):
            return None
        here = node
        while True:
            readers = view.readers(here)
            if len(readers) != 1 or not readers[0].is_a(*_LINEAR):
                return None
            here = readers[0]
            if here.is_a(InnerProduct):
                wide = node.spec.inner_product_param.num_output >= here.spec.inner_product_param.num_output
                return here if wide else None
