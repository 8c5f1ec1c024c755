"""`phase-mismatch` between TEST and the deploy net: different options or input, or missing layers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from caffe.doctor.case import quiet
from caffe.doctor.check import Check, Stage
from caffe.doctor.exam import Exam
from caffe.doctor.finding import Finding, Line, Severity
from caffe.doctor.view import View
from caffe.errors import CaffeError
from caffe.layers.activation import Dropout
from caffe.layers.convolution import Convolution, Deconvolution
from caffe.layers.dense import InnerProduct
from caffe.layers.input import Input
from caffe.layers.reduction import Accuracy
from caffe.layers.shape import Concat, Flatten, Permute, Reshape, Silence, Slice, Split
from caffe.layers.softmax import Softmax
from caffe.proto import caffe_pb2, upgrade

_LEARNED = (Convolution, Deconvolution, InnerProduct)
_PASSED = (Accuracy, Concat, Dropout, Flatten, Permute, Reshape, Silence, Slice, Softmax, Split)
"""Layers that a deploy net may add or omit: they have no effect in TEST, or are used for training in pairs."""
_ENDS = ("_train_test", "_train_val", "_train", "_trainval")


class Deploy(Check):
    """Compares the test net with the deploy net, a file beside it: deploy.prototxt or the like, or lenet.prototxt
    beside lenet_train_test.prototxt.

    A file is the deploy net if most of its learned layers have the names of the trained ones. Its layers must have the
    same options, its input the same channels and (before an InnerProduct layer) size as in TEST, and all layers of TEST
    on the way to the output must be present.
    """

    faults = {}  # phase-mismatch, a code of the check of TRAIN against TEST
    stage = Stage.FILES

    def examine(self, exam: Exam) -> Iterator[Finding | Line]:
        case = exam.case
        view = case.test if case.tests else case.train
        for path in _beside(case.net_path or case.path):
            try:
                with quiet():
                    deploy = View(upgrade.read_net(path), caffe_pb2.TEST, caffe_pb2.NetState())
            except CaffeError:
                continue
            names = {node.name for node in deploy.nodes if node.is_a(*_LEARNED)}
            mine = {node.name for node in view.nodes if node.is_a(*_LEARNED)}
            if not mine or len(names & mine) <= len(mine) / 2:
                continue
            facts = [*_options(view, deploy), *_absent(view, deploy), *_input(view, deploy)]
            if facts:
                yield _finding(path, facts)
            else:
                yield Line("net for use", f"{path} has the layers and the input of TEST")


def _beside(path: str) -> list[Path]:
    """Return the files beside a net whose names suggest that they are its deploy net."""
    folder, stem = Path(path).parent, Path(path).stem
    base = next((stem.removesuffix(end) for end in _ENDS if stem.endswith(end)), stem)
    names = ["deploy", f"{base}_deploy", f"{base}-deploy", f"deploy_{base}", base]
    found = [folder / f"{name}.prototxt" for name in names if name != stem]
    return [file for file in found if file.is_file()]


def _options(view: View, deploy: View) -> Iterator[str]:
    """Yield learned layers whose options other than fillers differ."""
    for node in view.nodes:
        other = deploy.named(node.name)
        if node.is_a(*_LEARNED) and other is not None and other.type == node.type:
            pair = [_plain(getattr(each.spec, each.options)) for each in (node, other)]
            if pair[0] != pair[1]:
                yield f'layer "{node.name}" has different options: {_text(pair[0])} in TEST, {_text(pair[1])} there'


def _absent(view: View, deploy: View) -> Iterator[str]:
    """Yield layers between the data and the last learned layer that the deploy net does not have."""
    learned = [node for node in view.nodes if node.is_a(*_LEARNED) and deploy.named(node.name)]
    way = list(view.before(learned[-1])) if learned else []
    kinds = [node.type for node in deploy.nodes]
    for node in sorted(way, key=lambda node: node.number):
        have, need = kinds.count(node.type), sum(other.type == node.type for other in way)
        if node.spec.bottom and not node.is_a(*_PASSED) and have < need and deploy.named(node.name) is None:
            yield f'layer "{node.name}" ({node.type}) is missing in the deploy net'


def _input(view: View, deploy: View) -> Iterator[str]:
    """Yield differences of the input: other channels, or another size if the net has layers that depend on it."""
    source = next((node for node in view.nodes if not node.spec.bottom and node.spec.top), None)
    given = next((node for node in deploy.nodes if node.is_a(Input)), None)
    if source is None or given is None or not given.spec.input_param.shape:
        return
    sizes = list(given.spec.input_param.shape[0].dim)
    crop = source.spec.transform_param.crop_size
    fixed = any(node.is_a(InnerProduct) for node in deploy.nodes)
    if len(sizes) == 4 and crop and fixed and sizes[2:] != [crop, crop]:
        yield f"its input is {sizes[2]} x {sizes[3]}, but the input of TEST {crop} x {crop}"
    means = len(source.spec.transform_param.mean_value)
    if len(sizes) == 4 and means > 1 and sizes[1] != means:
        yield f"its input has {sizes[1]} channels, but mean_value of TEST has {means}"


def _plain(options: Any) -> Any:
    plain = type(options)()
    plain.CopyFrom(options)
    for name in ("weight_filler", "bias_filler", "engine"):
        plain.ClearField(name)
    return plain


def _text(options: Any) -> str:
    return " ".join(str(options).split()) or "none"


def _finding(path: Path, facts: list[str]) -> Finding:
    return Finding(
        "phase-mismatch",
        Severity.WARNING,
        f"the deploy net differs from the test net: {facts[0]}",
        f"give {path} the same layers and input",
        f"{len(facts)} {'difference' if len(facts) == 1 else 'differences'}: {'; '.join(facts[:5])}",
        place=str(path),
        certain=True,
    )
