"""`phase-mismatch`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from caffe.doctor.changes import Change, Edit, SetField
from caffe.doctor.check import Check, Fault, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity

_FIELDS = ("scale", "mean_file", "mean_value", "force_gray", "force_color")


class Phases(Check):
    """Compares how TRAIN and TEST transform the same input."""

    faults = {
        "phase-mismatch": Fault(
            "TRAIN, TEST or the deploy net (`deploy.prototxt` beside it) transform the input differently, "
            "or have different layers",
            "compare the two `transform_param`, and the layers",
        ),
    }
    stage = Stage.FILES

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        case = exam.case
        for node in case.train.nodes:
            if not node.spec.bottom and node.spec.top and case.tests:
                other = next((o for o in case.test.nodes if node.spec.top[0] in o.spec.top and not o.spec.bottom), None)
                if other is None or other.spec == node.spec:
                    continue
                differing = [name for name in _FIELDS if _value(node.spec, name) != _value(other.spec, name)]
                if differing and not case.apart:
                    name = differing[0]
                    edits = tuple(self._edit(other.index, name, node.spec) for name in differing)
                    yield Finding(
                        "phase-mismatch",
                        Severity.ERROR,
                        f'input "{node.spec.top[0]}" has {name} {_text(node.spec, name)} in TRAIN and '
                        f"{_text(other.spec, name)} in TEST: the net is tested on different inputs",
                        f"give both data layers the same transform_param.{name}",
                        f"fields that differ: {', '.join(differing)}",
                        layer=other.name,
                        place=case.place(other.index, f"transform_param.{name}"),
                        change=Change(f"{', '.join(differing)} of TRAIN in TEST", edits),
                        certain=True,
                    )

    @staticmethod
    def _edit(index: int, name: str, spec: Any) -> Edit:
        value = _value(spec, name)
        if isinstance(value, list):
            return SetField(index, f"transform_param.{name}", f"{value[0]:g}" if value else "")
        text = (
            f'"{value}"'
            if isinstance(value, str)
            else (str(value).lower() if isinstance(value, bool) else f"{value:.9g}")
        )
        return SetField(
            index, f"transform_param.{name}", text if spec.transform_param.ListFields() and value != "" else ""
        )


def _value(spec: Any, name: str) -> Any:
    value = getattr(spec.transform_param, name)
    return value if isinstance(value, (str, float, int, bool)) else list(value)


def _text(spec: Any, name: str) -> str:
    value = _value(spec, name)
    return "not set" if value in ("", [], False) else str(value)
