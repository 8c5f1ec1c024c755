"""`gradients-vanish`, `gradients-explode`: the size of the gradient through the layers at the first step."""

from __future__ import annotations

import math
from collections.abc import Iterator

from caffe.doctor.changes import Change, SetField
from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.checks.fillers import filler, refill
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity
from caffe.layers.activation import Sigmoid, TanH

_FAR = 1e3
_LAYERS = 3


class Gradients(Check):
    """Compares the gradient at the first learned layer with the gradient at the last."""

    faults = {
        "gradients-vanish": Fault(
            "the gradient becomes small towards the input",
            "compare the gradients of the first and the last layer (`debug_info: true`)",
        ),
        "gradients-explode": Fault(
            "the gradient becomes large towards the input", "the same comparison; the first layer's is larger"
        ),
    }
    stage = Stage.START

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        nodes = {node.name: node for node in exam.case.train.nodes if node.learned}
        sizes = [(f.name, f.gradient) for f in exam.layers if f.name in nodes and math.isfinite(f.gradient)]
        sizes = [(name, size) for name, size in sizes if size > 0 and exam.head and self._leads(exam, name)]
        if len(sizes) < 2:
            return
        (first, low), (last, high) = sizes[0], sizes[-1]
        yield Line("gradients at the first step", f"{low:.1e} in {first}, {high:.1e} in {last}")
        if len(sizes) < _LAYERS or (high < _FAR * low and low < _FAR * high):
            return
        vanish = low < high
        random = [n for n in nodes.values() if filler(n).type != "constant" and n.name not in exam.case.stored]
        squashing = [node for node in exam.case.train.nodes if node.is_a(Sigmoid, TanH)]
        change = refill([n for n in random if filler(n).type in ("gaussian", "uniform")] or random)
        if vanish and squashing and not any(filler(node).type in ("gaussian", "uniform") for node in random):
            edits = tuple(SetField(node.index, "type", '"ReLU"') for node in squashing)
            change = Change(f"ReLU instead of {', '.join(node.name for node in squashing[:4])}", edits)
        elif not vanish and not random:
            change = Change("clip_gradients 1", (SetField(None, "clip_gradients", "1"),))
        way = "smaller" if vanish else "larger"
        yield Finding(
            "gradients-vanish" if vanish else "gradients-explode",
            Severity.WARNING,
            f'the gradient is {max(low / high, high / low):,.0f} times {way} at layer "{first}" than at "{last}": '
            + ("the first layers do not learn" if vanish else "the first layers are unstable"),
            f"keep the size of the signal constant: {change.text}; or BatchNorm between the layers",
            f"{low:.1e} against {high:.1e}, a factor below 100 is usual",
            layer=first,
            place=exam.case.place(nodes[first].index),
            change=change,
            may_pass=True,
        )

    @staticmethod
    def _leads(exam: Exam, name: str) -> bool:
        """Whether the judged outputs depend on a layer."""
        return exam.head is not None and any(node.name == name for node in exam.case.train.before(exam.head.node))
