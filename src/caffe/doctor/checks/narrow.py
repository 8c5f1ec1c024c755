"""`narrow-layer`."""

from __future__ import annotations

from collections.abc import Iterator

from caffe.doctor.changes import Change, SetField
from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity
from caffe.doctor.view import Node
from caffe.layers.dense import Embed, InnerProduct


class Narrow(Check):
    """Looks for a learned layer below the outputs of a classifier that has fewer outputs than there are classes."""

    faults = {
        "narrow-layer": Fault(
            "a layer has too few outputs to distinguish the classes", "its `num_output` is below the number of classes"
        ),
    }
    stage = Stage.START

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        view, head = exam.case.train, exam.head
        if head is None or not head.classes:
            return
        learned = [node for node in view.before(head.node) if node.learned and not node.is_a(Embed)]
        if len(learned) < 2:
            return
        last, *below = learned
        classes = getattr(last.spec, last.options).num_output
        narrow = [node for node in below if self._is_narrow(node, below, classes)]
        if not narrow:
            return
        node, wide = narrow[0], max(32, 4 * classes)
        width = getattr(node.spec, node.options).num_output
        edits = tuple(SetField(each.index, f"{each.options}.num_output", str(wide)) for each in narrow)
        yield Finding(
            "narrow-layer",
            Severity.WARNING,
            f'layer "{node.name}" has {width} output(s), too few to distinguish {classes} classes',
            f"raise its num_output from {width} to {wide} or more",
            f"{width} outputs for {classes} classes",
            layer=node.name,
            place=exam.case.place(node.index, f"{node.options}.num_output"),
            change=Change(f"{wide} outputs of {', '.join(each.name for each in narrow)}", edits),
        )

    @staticmethod
    def _is_narrow(node: Node, learned: list[Node], classes: int) -> bool:
        """Whether the layer has fewer outputs than classes and no other layer passes its bottom on."""
        beside = [other for other in learned if set(other.spec.bottom) & set(node.spec.bottom)]
        width = getattr(node.spec, node.options).num_output
        return len(beside) == 1 and width < max(2, classes) / (1 if node.is_a(InnerProduct) else 2)
