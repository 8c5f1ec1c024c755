"""`frozen-layers`, `nothing-learns`."""

from __future__ import annotations

from collections.abc import Iterator

from caffe.doctor.changes import Change, Edit, SetField
from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity


class Frozen(Check):
    """Looks for layers with random weights that are not trained, and for runs that train no layer at all."""

    faults = {
        "frozen-layers": Fault("random weights are never trained", "`lr_mult: 0` without weights from a file"),
        "nothing-learns": Fault("no weight changes", "the first update is 0 everywhere"),
    }
    stage = Stage.START

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        weights = [blob for blob in exam.blobs if blob.index == 0]
        if not weights:
            return
        if all(blob.update == 0 for blob in exam.blobs) or exam.case.param.clip_gradients == 0:
            yield self._nothing(exam)
            return
        frozen = [blob for blob in weights if blob.lr_mult == 0]
        names = [blob.layer for blob in frozen if blob.layer not in exam.case.stored]
        if not names:
            return
        nodes = [node for node in exam.case.train.nodes if node.name in names and node.spec.param]
        if not nodes:
            return
        edits: list[Edit] = [SetField(node.index, "param[0].lr_mult", "1") for node in nodes]
        listed = ", ".join(f'"{node.name}"' for node in nodes[:4])
        yield Finding(
            "frozen-layers",
            Severity.WARNING,
            f"layers {listed} have lr_mult 0 and no weights from a file: they keep their random initial weights",
            "set lr_mult to 1, or give trained weights with -weights",
            f"{len(names)} of {len(weights)} learned layers do not learn",
            layer=nodes[0].name,
            place=exam.case.place(nodes[0].index, "param.lr_mult"),
            change=Change(f"lr_mult 1 in {', '.join(node.name for node in nodes[:4])}", tuple(edits)),
            certain=True,
        )

    @staticmethod
    def _nothing(exam: Exam) -> Finding:
        param = exam.case.param
        if param.base_lr == 0:
            fact, edit, text = "base_lr is 0", SetField(None, "base_lr", "0.01"), "base_lr 0.01"
        elif param.clip_gradients == 0:
            fact, edit, text = "clip_gradients is 0", SetField(None, "clip_gradients", ""), "no clip_gradients"
        elif all(blob.lr_mult == 0 for blob in exam.blobs):
            first = next(node for node in exam.case.train.nodes if node.spec.param)
            fact, edit, text = "every blob has lr_mult 0", SetField(first.index, "param[0].lr_mult", "1"), "lr_mult 1"
        elif all(blob.gradient == 0 for blob in exam.blobs):
            return Finding(
                "nothing-learns",
                Severity.ERROR,
                "the first step has no gradient in any weight",
                "see the other findings: dead units, equal weights, or a loss that does not depend on the weights",
                "all gradients are 0",
                symptom=True,
            )
        else:
            fact, edit, text = (
                f'the rate of lr_policy "{param.lr_policy}" is 0',
                SetField(None, "lr_policy", '"fixed"'),
                "fixed",
            )
        return Finding(
            "nothing-learns",
            Severity.ERROR,
            f"{fact}: no weight changes",
            f"set {text}",
            "the first update is 0 in every blob",
            place=exam.case.place(edit.layer, edit.path),
            change=Change(text, (edit,)),
            certain=True,
        )
