"""`too-few-epochs`, `test-coverage`, `snapshot-never`."""

from __future__ import annotations

from collections.abc import Iterator

from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity

_LEAST_EPOCHS = 0.5
_COVERED = (2 / 3, 1.5)


class Extent(Check):
    """Compares the iterations of training, of a test and between snapshots with the sizes of the data sets."""

    faults = {
        "too-few-epochs": Fault(
            "the run ends before it has read all data", "compare `max_iter` x batch size with the number of items"
        ),
        "test-coverage": Fault(
            "a test covers only a part of the test set", "compare `test_iter` x batch size with the number of items"
        ),
        "snapshot-never": Fault("the result is lost", "no `snapshot`, and `snapshot_after_train: false`"),
    }
    stage = Stage.DATA

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        param, sample, test = exam.case.param, exam.sample, exam.test_sample
        if sample.count and param.max_iter:
            epochs = param.max_iter * param.iter_size * sample.batch / sample.count
            yield Line("epochs", f"{epochs:.3g} passes over {sample.count:,} items in {param.max_iter:,} iterations")
            if epochs < _LEAST_EPOCHS:
                yield Finding(
                    "too-few-epochs",
                    Severity.WARNING,
                    f"the run sees {100 * epochs:.0f} % of the {sample.count:,} training items",
                    f"raise max_iter from {param.max_iter:,} to {-(-sample.count // sample.batch):,} or more",
                    f"{param.max_iter:,} iterations of {sample.batch} items",
                    place=exam.case.place(None, "max_iter"),
                    certain=True,
                )
        if test is not None and test.count and test.batch:
            share = param.test_iter[0] * test.batch / test.count
            yield Line("a test", f"{100 * share:.0f} % of {test.count:,} items")
            if not _COVERED[0] <= share <= _COVERED[1]:
                yield Finding(
                    "test-coverage",
                    Severity.WARNING if share < 1 else Severity.NOTE,
                    f"a test covers {100 * share:.0f} % of the {test.count:,} test items",
                    f"set test_iter to {-(-test.count // test.batch)}",
                    f"test_iter {param.test_iter[0]} x batch {test.batch} = {param.test_iter[0] * test.batch:,} items",
                    place=exam.case.place(None, "test_iter"),
                    certain=True,
                )
        if not param.snapshot_after_train and not 0 < param.snapshot <= param.max_iter:
            yield Finding(
                "snapshot-never",
                Severity.WARNING,
                "no snapshot is ever written: the weights are lost at the end",
                "remove snapshot_after_train: false, or set snapshot",
                f"snapshot {param.snapshot}, max_iter {param.max_iter}",
                place=exam.case.place(None, "snapshot_after_train"),
                certain=True,
            )
