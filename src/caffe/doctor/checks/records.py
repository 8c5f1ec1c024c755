"""`duplicate-records`, `train-test-overlap`, `validation-too-good`: copies, and meaningless tests."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from caffe.doctor.check import Check, Fault, Stage, certain
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity

_COPIES, _SHARED = 0.2, 0.05
_NUMBERS, _VALUES = 16, 8
"""Items with fewer numbers, or fewer distinct ones, can be equal by chance."""


class Records(Check):
    """Compares hashes of the items of training and test data, and the classes of both."""

    faults = {
        "duplicate-records": Fault("many training items are copies", "hash the records and count"),
        "train-test-overlap": Fault("test items are also training items", "hash the records of both sets"),
        "validation-too-good": Fault("the test data contain few of the classes", "count the labels of the test set"),
    }
    stage = Stage.DATA

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        names = exam.inputs()
        if not names or not exam.sample.count:
            return
        x = exam.sample.arrays.get(names[0])
        node = exam.case.train.source(names[0])
        train = _hashes(x)
        if train:
            copies = 1 - len(set(train)) / len(train)
            yield Line("copies", f"{100 * copies:.1f} % of {len(train):,} training items are copies of others")
            if copies > _COPIES:
                yield certain(
                    exam,
                    node,
                    "duplicate-records",
                    f"{100 * copies:.0f} % of the {len(train):,} training items that were read are copies of others",
                    "remove the copies, or count epochs by distinct items",
                    f"{len(set(train)):,} of {len(train):,} items are distinct",
                )
        yield from self._overlap(exam, names[0], set(train))
        yield from self._classes(exam)

    @staticmethod
    def _overlap(exam: Exam, name: str, train: set[bytes]) -> Iterator[Finding | Line]:
        other = exam.test_sample
        test = _hashes(other.arrays.get(name)) if other is not None else []
        if not test or not train:
            return
        shared = sum(each in train for each in test) / len(test)
        yield Line("test items in the training data", f"{100 * shared:.1f} % of {len(test):,}")
        if shared > _SHARED:
            node = exam.case.test.source(name)
            several = len(exam.case.param.test_iter) > 1
            yield certain(
                exam,
                node,
                "train-test-overlap",
                f"{100 * shared:.0f} % of the test items are also training items: the test measures what was memorized",
                "split the data once, before anything else, and test on items that are not used for training",
                f"{round(shared * len(test)):,} of {len(test):,} items",
                Severity.NOTE if several else Severity.WARNING,
            )

    @staticmethod
    def _classes(exam: Exam) -> Iterator[Finding]:
        other, head = exam.test_sample, exam.head
        if other is None or head is None or not head.classes or not other.whole:
            return
        mine, theirs = (sample.arrays.get(head.labels) for sample in (exam.sample, other))
        if mine is None or theirs is None or not theirs.size:
            return
        classes, tested = np.unique(mine), np.unique(theirs)
        if len(classes) > 2 * len(tested):
            node = exam.case.test.source(head.labels)
            yield certain(
                exam,
                node,
                "validation-too-good",
                f"the test data hold {len(tested)} of {len(classes)} classes: a constant answer is often correct",
                "take the test items from the same classes as the training items",
                f"{theirs.size:,} labels of {len(tested)} classes",
            )


def _hashes(x: np.ndarray | None) -> list[bytes]:
    """Return a hash of each item; empty if the items can be equal by chance, or if all are equal."""
    if x is None or x.ndim < 2 or len(x) < 2 or x[0].size < _NUMBERS:
        return []
    if len(np.unique(x[:50])) < _VALUES or bool((x == x[:1]).all()):
        return []
    from hashlib import blake2b

    return [blake2b(np.ascontiguousarray(item).tobytes(), digest_size=16).digest() for item in x]
