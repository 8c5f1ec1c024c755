"""`labels-unrelated`: the labels do not depend on the inputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity

_MOST = 1500
_LEAST = 100
_FAILS = 0.1


class LabelsUnrelated(Check):
    """If training does no better than guessing, checks whether nearest neighbours have equal labels."""

    faults = {
        "labels-unrelated": Fault(
            "the labels do not depend on the inputs",
            "the nearest neighbours' labels are correct as often as a guess; "
            "the net overfits twenty items, but does not learn all items",
        ),
    }
    stage = Stage.RUN

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        found, head = neighbours(exam), exam.head
        if found is None or head is None:
            return
        right, chance, items = found
        yield Line("nearest neighbours", f"{100 * right:.0f} % correct, a guess {100 * chance:.0f} %")
        least = chance + 3 * float(np.sqrt(chance * (1 - chance) / items))
        if right > least or exam.long.quality > _FAILS or exam.long.failed is not None or not exam.by_heart.learned:
            return
        source = exam.case.train.source(head.labels)
        yield Finding(
            "labels-unrelated",
            Severity.ERROR,
            "the labels do not depend on the inputs: the net memorizes some items, and learns nothing about others",
            "look at items with their labels (caffe preview); check how the list of labels was created and shuffled",
            f"the nearest of {items} items has the same label in {100 * right:.0f} %, by chance {100 * chance:.0f} %; "
            f"{exam.by_heart.text}",
            layer=source.name,
            place=exam.case.place(source.index),
            certain=True,
        )


def neighbours(exam: Exam) -> tuple[float, float, int] | None:
    """Return the share of items whose nearest neighbour has their label, the share of the largest class, and the item
    count.

    None if the task does not have one class per item.
    """
    names, head = exam.inputs(), exam.head
    if head is None or not head.classes or len(names) != 1:
        return None
    x, y = exam.sample.arrays.get(names[0]), exam.sample.arrays.get(head.labels)
    if x is None or y is None or len(x) != len(y) or y.size != len(y) or len(x) < _LEAST or not np.isfinite(x).all():
        return None
    x, y = x[:_MOST].reshape(min(len(x), _MOST), -1).astype(np.float32), y[:_MOST].ravel()
    x, kept = np.unique(x, axis=0, return_index=True)  # a copy of an item would be its nearest neighbour
    y = y[kept]
    if len(x) < _LEAST:
        return None
    squares = np.square(x).sum(1)
    distance = squares[:, None] + squares[None, :] - 2 * (x @ x.T)
    np.fill_diagonal(distance, np.inf)
    _, counts = np.unique(y, return_counts=True)
    return float((y[distance.argmin(1)] == y).mean()), float(counts.max() / len(y)), len(x)
