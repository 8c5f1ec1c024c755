"""`weights-not-loaded`: weights are given, but names of layers differ from those in the file."""

from __future__ import annotations

from collections.abc import Iterator

from caffe.doctor.case import close
from caffe.doctor.changes import Change, SetField
from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity
from caffe.doctor.view import Node

Shapes = list[tuple[int, ...]]


class WeightsGiven(Check):
    """Compares names and shapes of the net's layers with the weight files."""

    faults = {
        "weights-not-loaded": Fault(
            "layer names differ from those in the weight file",
            'compare the names with those that `caffe summarize` or the log\'s "Ignoring source layer" shows',
        ),
    }
    stage = Stage.FILES

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        case = exam.case
        if not case.loaded:
            return
        learned = [node for node in case.train.nodes if node.learned]
        missing = [node for node in learned if node.name not in case.stored]
        yield Line(
            "weights", f"{len(learned) - len(missing)} of {len(learned)} learned layers get their weights from the file"
        )
        # renaming the last layer is the usual way to train it from scratch
        low = [node for node in missing if any(other in learned for other in case.train.after(node))]
        if not low:
            return
        spare = {name: shapes for name, shapes in case.stored.items() if all(n.name != name for n in learned)}
        pairs = _matched(low, spare, _shapes(exam))
        edits = tuple(SetField(node.index, "name", f'"{name}"') for node, name in pairs)
        change = Change(f"the file's names: {', '.join(name for _, name in pairs[:4])}", edits) if pairs else None
        names = ", ".join(f'"{node.name}"' for node in low[:4])
        nothing = len(missing) == len(learned)
        yield Finding(
            "weights-not-loaded",
            Severity.ERROR if nothing else Severity.WARNING,
            f"layers {names} get no weights from the file: weights are matched by the layers' names",
            f"name {names} as in the file" + (f": {', '.join(name for _, name in pairs[:4])}" if pairs else ""),
            f"the file has {', '.join(list(spare)[:6]) or 'no other layers'}",
            layer=low[0].name,
            place=case.place(low[0].index, "name"),
            change=change,
            certain=nothing or bool(pairs),
        )


def _matched(nodes: list[Node], spare: dict[str, Shapes], shapes: dict[str, Shapes]) -> list[tuple[Node, str]]:
    """Pair layers with layers of the file that have the same shapes, in order."""
    pairs, left = [], dict(spare)
    for node in nodes:
        name = next((name for name, stored in left.items() if _size(stored) == _size(shapes.get(node.name, []))), None)
        if name is not None:
            del left[name]
            pairs.append((node, name))
    return pairs


def _size(shapes: Shapes) -> Shapes:
    """Return a shape without axes of length 1, which old files add."""
    return [tuple(n for n in shape if n != 1) for shape in shapes]


def _shapes(exam: Exam) -> dict[str, Shapes]:
    """Return the shapes of the train net's blobs by layer."""
    solver = exam.case.solver(Change("no weights", (SetField(None, "weights", ""),)))
    try:
        return {layer.name: [tuple(tensor.shape) for tensor in layer.tensors] for layer in solver.net.layers}
    finally:
        close(solver)
