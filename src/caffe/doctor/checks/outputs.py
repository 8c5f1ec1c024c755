"""`loss-missing`, `unused-layer`."""

from __future__ import annotations

from collections.abc import Iterator

from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity


class Outputs(Check):
    """Looks for a missing loss, and for learned layers whose results are not used."""

    faults = {
        "loss-missing": Fault("the weights get no gradient", "no layer of the TRAIN net has a loss weight"),
        "unused-layer": Fault("a learned layer does not lead to a loss", "no layer reads its top"),
    }
    stage = Stage.FILES

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        nodes = exam.case.train.nodes
        losses = [n for n in nodes if (any(n.spec.loss_weight) if n.spec.loss_weight else n.kind.default_loss_weight)]
        if not losses:
            yield Finding(
                "loss-missing",
                Severity.ERROR,
                "the train net has no loss, so the weights get no gradient",
                "add a loss layer, such as SoftmaxWithLoss; a loss_weight of 0 removes a layer from the loss",
                "no layer with a loss weight",
                place=exam.case.net_path or exam.case.path,
                certain=True,
            )
            return
        below = {other.number for loss in losses for other in exam.case.train.before(loss)}
        unused = [node for node in nodes if node.learned and node.number not in below]
        if unused:
            names = ", ".join(f'"{node.name}"' for node in unused[:4])
            yield Finding(
                "unused-layer",
                Severity.WARNING,
                f"layers {names} do not lead to a loss: they are computed, but not trained",
                "connect them, or remove them",
                f"{len(unused)} learned layer(s)",
                layer=unused[0].name,
                place=exam.case.place(unused[0].index),
                certain=True,
            )
