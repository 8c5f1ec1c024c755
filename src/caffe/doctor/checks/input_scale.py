"""`input-scale`, `constant-input`, `non-finite-data`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from caffe.doctor.changes import AddLayer, Change, Edit, SetField
from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity
from caffe.doctor.view import Node
from caffe.layers.data import Data, ImageData
from caffe.layers.dense import Embed

_LARGE, _SMALL, _AWAY = 10.0, 0.02, 10.0


class InputScale(Check):
    """Checks the values that the data layers produce."""

    faults = {
        "input-scale": Fault(
            "the input is far from the range that weight fillers expect", "mean and standard deviation of a batch"
        ),
        "constant-input": Fault("all items are equal", "look at a batch with `caffe preview`"),
        "non-finite-data": Fault("the data contain NaN or infinity", "search a batch for them"),
    }
    stage = Stage.DATA

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        for name in exam.inputs():
            x = exam.sample.arrays.get(name)
            node = exam.case.train.source(name)
            numbers = any(other.is_a(Embed) for other in exam.case.train.readers(node) if name in other.spec.bottom)
            if x is not None and x.size and not numbers:
                yield from self._look(exam, name, node, x)

    def _look(self, exam: Exam, name: str, node: Node, x: np.ndarray) -> Iterator[Finding | Line]:
        bad = int((~np.isfinite(x)).sum())
        place = exam.case.place(node.index, "transform_param.scale")
        if bad:
            row = int(np.argwhere(~np.isfinite(x))[0][0])
            yield Finding(
                "non-finite-data",
                Severity.ERROR,
                f'input "{name}" holds {bad:,} numbers that are NaN or infinite, the first in item {row}',
                "repair or remove these records",
                f"{bad:,} of {x.size:,} numbers",
                layer=node.name,
                place=exam.case.place(node.index),
                certain=True,
            )
            return
        mean, std = float(x.mean(dtype=np.float64)), float(x.std(dtype=np.float64))
        low, high = float(x.min()), float(x.max())
        yield Line(f'input "{name}"', f"{low:.3g} to {high:.3g}, mean {mean:.3g}, standard deviation {std:.3g}")
        if len(x) > 1 and bool((x == x[:1]).all()):
            yield Finding(
                "constant-input",
                Severity.ERROR,
                f'input "{name}" is the same in all of the {len(x):,} items that were read',
                "look at transform_param (a scale of 0?) and at the database: caffe preview shows it",
                f"all numbers lie between {low:.3g} and {high:.3g}",
                layer=node.name,
                place=place,
                certain=True,
            )
        elif std > _LARGE or std < _SMALL or abs(mean) > _AWAY * std:
            yield self._scale(exam, name, node, mean, std)

    @staticmethod
    def _scale(exam: Exam, name: str, node: Node, mean: float, std: float) -> Finding:
        away = abs(mean) > _AWAY * std
        factor = 1 / 256 if 30 < std < 200 else 1 / std
        change = rescaled(exam, name, node, factor, mean if away else 0.0)
        return Finding(
            "input-scale",
            Severity.WARNING,
            f'input "{name}" has mean {mean:.3g} and standard deviation {std:.3g}: weight fillers expect about 0 and 1',
            f"bring it to about 0 to 1, or to mean 0 and deviation 1: {change.text}",
            f"standard deviation {std:.3g}, 0.1 to 5 is usual",
            layer=node.name,
            place=exam.case.place(node.index, "transform_param.scale"),
            change=change,
            may_pass=True,
        )


def rescaled(exam: Exam, name: str, node: Node, factor: float, mean: float) -> Change:
    """Create the change that subtracts `mean` from an input and multiplies it by `factor`, in all phases."""
    factor = float(f"{factor:.3g}") if not math.isclose(factor, 1 / 256) else factor
    edits: list[Edit] = []
    layers = [(index, spec) for index, spec in enumerate(exam.case.net.layer) if name in spec.top and not spec.bottom]
    if node.is_a(Data, ImageData):
        for index, spec in layers:
            own = spec.transform_param.scale
            edits.append(SetField(index, "transform_param.scale", f"{own * factor:g}"))
            if mean:
                edits.append(SetField(index, "transform_param.mean_value", f"{mean / own:g}" if own else "0"))
    else:
        last = max(index for index, _ in layers)
        power = f"power_param {{ scale: {factor:g} shift: {-mean * factor:g} }}"
        block = f'layer {{ name: "{name}_scaled" type: "Power" bottom: "{name}" top: "{name}" {power} }}'
        edits.append(AddLayer(last, block))
    about = f", mean {mean:.3g} subtracted" if mean else ""
    return Change(f'input "{name}" times {factor:.3g}{about}', tuple(edits))
