"""`input-starved`: training is limited by the speed of the data layers."""

from __future__ import annotations

from collections.abc import Iterator

from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Proof, Severity

_LEAST, _GAIN, _STEPS = 0.005, 0.5, 20


class Starved(Check):
    """Compares the time of a step with the time of a step on a batch in memory."""

    faults = {
        "input-starved": Fault(
            "training waits for its data",
            "a step is much faster with one batch in memory; in a log, the time of an iteration varies",
        ),
    }
    stage = Stage.RUN

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        run = exam.base
        if run.failed is not None or run.error or not len(run.losses):
            return
        step = run.step_seconds
        yield Line("time", f"{1000 * step:.2g} ms for a step")
        if step < _LEAST:
            return
        change = exam.kept(exam.sample.batch, plain=False)
        if change is None or not exam.trials.time_for(1):
            return
        kept = exam.trials.run(change, _STEPS)  # data layers prefetch, so the time of a read alone is not informative
        if kept.error or kept.failed is not None or kept.step_seconds > (1 - _GAIN) * step:
            return
        if exam.sample.work < kept.step_seconds:
            return  # a batch is made in less time than a step takes: other programs delayed the reading
        again = exam.trials.run(None, _STEPS)  # another program may have used the machine the first time
        if again.error or again.failed is not None or kept.step_seconds > (1 - _GAIN) * again.step_seconds:
            return
        node = next(node for node in exam.case.train.nodes if not node.spec.bottom and node.spec.top)
        yield Finding(
            "input-starved",
            Severity.WARNING,
            f'training waits for layer "{node.name}": a step takes {1000 * step:.3g} ms',
            "make a database of small images (caffe convert_imageset -resize_height 256), or raise data_param.prefetch",
            f"{1000 * kept.step_seconds:.3g} ms with a batch in memory",
            layer=node.name,
            place=exam.case.place(node.index),
            proof=Proof(
                f"unchanged: {1000 * step:.3g} ms per step",
                f"with one batch in memory: {1000 * kept.step_seconds:.3g} ms",
                1 - kept.step_seconds / step,
                run.quality,
            ),
            certain=True,
        )
