"""`batch-norm-frozen`, `batch-too-small`, `useless-bias`."""

from __future__ import annotations

from collections.abc import Iterator

from caffe.doctor.changes import Change, SetField
from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity
from caffe.layers import normalization
from caffe.layers.dense import Embed

_SMALL, _USUAL = 4, 32


class BatchNorm(Check):
    """Checks which statistics BatchNorm layers use, and whether layers before them have a useless bias."""

    faults = {
        "batch-norm-frozen": Fault(
            "BatchNorm uses statistics that were never computed", "`use_global_stats: true` in TRAIN without weights"
        ),
        "batch-too-small": Fault("BatchNorm's statistics come from too few items", "`batch_size` below 4"),
        "useless-bias": Fault("BatchNorm subtracts a bias again (a note)", "a `bias_term` before a BatchNorm"),
    }
    stage = Stage.FILES

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        view = exam.case.train
        norms = [node for node in view.nodes if node.is_a(normalization.BatchNorm)]
        frozen = [node for node in norms if node.spec.batch_norm_param.use_global_stats]
        frozen = [node for node in frozen if node.name not in exam.case.stored]
        if frozen:
            edits = tuple(SetField(node.index, "batch_norm_param.use_global_stats", "") for node in frozen)
            yield Finding(
                "batch-norm-frozen",
                Severity.WARNING,
                f'layer "{frozen[0].name}" (BatchNorm) uses stored statistics in TRAIN, but no weights provide them',
                "remove use_global_stats: TRAIN then uses the statistics of the batch, TEST the stored ones",
                f"{len(frozen)} of {len(norms)} BatchNorm layers",
                layer=frozen[0].name,
                place=exam.case.place(frozen[0].index, "batch_norm_param.use_global_stats"),
                change=Change("no use_global_stats", edits),
                certain=True,
            )
        if any(not node.spec.batch_norm_param.use_global_stats for node in norms):
            yield from self._batch(exam)
        for node in norms:
            maker = view.maker(node, node.spec.bottom[0])
            options = getattr(maker.spec, maker.options) if maker and maker.learned else None
            if maker is not None and getattr(options, "bias_term", False) and not maker.is_a(Embed):
                yield Finding(
                    "useless-bias",
                    Severity.NOTE,
                    f'layer "{maker.name}" has a bias, which the BatchNorm "{node.name}" after it subtracts',
                    "set bias_term: false",
                    layer=maker.name,
                    place=exam.case.place(maker.index),
                )
                return

    @staticmethod
    def _batch(exam: Exam) -> Iterator[Finding]:
        for node in exam.case.train.nodes:
            for field in ("data_param", "image_data_param", "hdf5_data_param", "array_data_param", "memory_data_param"):
                size = getattr(node.spec, field).batch_size if node.spec.HasField(field) else 0
                if 0 < size < _SMALL:
                    yield Finding(
                        "batch-too-small",
                        Severity.WARNING,
                        f"a batch has {size} item(s): too few for BatchNorm's mean and variance",
                        f"raise batch_size from {size} to {_USUAL}",
                        f"{size} items; {_USUAL} or more are usual",
                        layer=node.name,
                        place=exam.case.place(node.index, f"{field}.batch_size"),
                        change=Change(
                            f"batch_size {_USUAL}", (SetField(node.index, f"{field}.batch_size", str(_USUAL)),)
                        ),
                        certain=size == 1,
                    )
