"""`input-starved`: training waits for its data."""

from __future__ import annotations

from collections.abc import Iterator

from caffe.doctor.check import Check, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Proof, Severity

_LEAST, _GAIN = 0.005, 0.5


class Starved(Check):
    """Compares the time to read a batch with that of a step, and with a step over items that are in memory."""

    codes = ("input-starved",)
    stage = Stage.RUN

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        run = exam.base
        if run.failed is not None or run.error or not len(run.losses):
            return
        read, step = exam.sample.seconds, run.step_seconds
        yield Line("time", f"{1000 * read:.2g} ms to read a batch, {1000 * step:.2g} ms for a step")
        if read < max(_LEAST, _GAIN * step):
            return
        change = exam.kept(exam.sample.batch, plain=False)
        if change is None or not exam.trials.time_for(exam.steps):
            return
        kept = exam.trials.run(change, exam.steps)
        if kept.error or kept.step_seconds > (1 - _GAIN) * step:
            return
        node = next(node for node in exam.case.train.nodes if not node.spec.bottom and node.spec.top)
        yield Finding(
            "input-starved",
            Severity.WARNING,
            f'training waits for layer "{node.name}": reading a batch takes {1000 * read:.3g} ms',
            "make a database of small images (caffe convert_imageset -resize_height 256), or raise data_param.prefetch",
            f"a step takes {1000 * step:.3g} ms",
            layer=node.name,
            place=exam.case.place(node.index),
            proof=Proof(
                f"as it is: {1000 * step:.3g} ms a step",
                f"with one batch kept in memory: {1000 * kept.step_seconds:.3g} ms",
                1 - kept.step_seconds / step,
                run.quality,
            ),
            certain=True,
        )
