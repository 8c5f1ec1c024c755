"""`dead-units`."""

from __future__ import annotations

from collections.abc import Iterator

from caffe.doctor.changes import Change, Edit, SetField
from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity
from caffe.layers.activation import ReLU

_MANY = 0.5


class DeadUnits(Check):
    """Looks for ReLU units that are 0 for every item, and for the biases that cause it."""

    faults = {
        "dead-units": Fault("ReLU units are 0 for every input", "count the units whose maximum over a batch is 0"),
    }
    stage = Stage.START

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        view = exam.case.train
        names = {node.name for node in view.nodes if node.is_a(ReLU)}
        relus = [layer for layer in exam.layers if layer.name in names]
        if not relus:
            return
        worst = max(relus, key=lambda layer: layer.dead)
        yield Line("dead units at the first step", f"{100 * worst.dead:.0f} % at most, in {worst.name}")
        if worst.dead < _MANY:
            return
        relu = view.named(worst.name)
        maker = next((node for node in view.before(relu) if node.learned), None) if relu else None
        negative = [
            node for node in view.nodes if node.learned and getattr(node.spec, node.options).bias_filler.value < 0
        ]
        edits: list[Edit] = [SetField(node.index, f"{node.options}.bias_filler.value", "0") for node in negative]
        yield Finding(
            "dead-units",
            Severity.WARNING,
            f'{100 * worst.dead:.0f} % of the units of "{worst.name}" are 0 for every input, so they get no gradient',
            "initialize biases to 0 or slightly above" if negative else "see the other findings, or use PReLU",
            f"{100 * worst.dead:.0f} %; below 20 % is usual",
            layer=maker.name if maker else worst.name,
            place=exam.case.place(maker.index, f"{maker.options}.bias_filler") if maker else "",
            change=Change(f"bias_filler 0 in {', '.join(n.name for n in negative)}", tuple(edits)) if edits else None,
            symptom=not edits,
            may_pass=True,
        )
