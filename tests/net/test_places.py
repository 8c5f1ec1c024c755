"""Errors that name the cause of a mistake, not the layer where it becomes visible."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import caffe
from caffe.data.pipeline.transformer import BatchTransformer
from caffe.errors import CaffeError, DataError, LayerError, NetError
from caffe.proto import caffe_pb2, text
from tests.layers.build import apply

CONVOLUTION = (
    'layer { name: "c" type: "Convolution" bottom: "r" top: "c" convolution_param { num_output: 2 kernel_size: 1 } }'
)
RULED = """layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "train" type: "Power" bottom: "data" top: "x" include { phase: TRAIN stage: "a" } }
layer { name: "old" type: "Power" bottom: "data" top: "x" exclude { min_level: 0 } exclude { stage: "b" } }
layer { name: "reader" type: "Power" bottom: "x" top: "y" }
layer { name: "late" type: "Power" bottom: "data" top: "x" }
"""


def build(tmp_path: Path, source: str, **options: object) -> caffe.Net:
    path = tmp_path / "net.prototxt"
    path.write_text(source)
    return caffe.Net(str(path), options.pop("phase", caffe.TEST), **options)


def test_an_input_without_a_shape_is_blamed_itself(tmp_path):
    source = '\nlayer { name: "in" type: "Input" top: "data" }\n'
    source += 'layer { name: "r" type: "ReLU" bottom: "data" top: "r" }\n'
    assert build(tmp_path, source).blobs["r"].shape == ()
    with pytest.raises(LayerError) as info:
        build(tmp_path, source + CONVOLUTION)
    says = 'net.prototxt:2: layer "in" (Input): has no shape, and layer "c" (Convolution) needs one; write input_param'
    assert says in str(info.value)
    shaped = source.replace('"data" }', '"data" input_param { shape { dim: 2 } } }', 1)
    with pytest.raises(LayerError, match=r'net.prototxt:4: layer "c" \(Convolution\)'):
        build(tmp_path, shaped + CONVOLUTION)


def test_an_unknown_bottom_names_the_layers_that_produce_it_and_why_they_are_excluded(tmp_path):
    with pytest.raises(NetError) as info:
        build(tmp_path, RULED, stages=["b"])
    message = str(info.value)
    assert 'net.prototxt:4: layer "reader" (Power): unknown bottom blob "x"' in message
    own = "is left out of this net: the net has phase: TEST, level: 0, stages: b"
    for says in (
        f'net.prototxt:2) makes it, but {own}, and its include rules ask for phase: TRAIN stage: "a"',
        f'net.prototxt:3) makes it, but {own}, and an exclude rule names min_level: 0 or stage: "b"',
        'layer "late" (Power, ',
        "net.prototxt:5) makes it, but comes after its reader: move it up",
    ):
        assert says in message
    assert "did you mean" not in message
    with pytest.raises(NetError, match=r'unknown bottom blob "dta".*did you mean "data"'):
        build(tmp_path, RULED.replace('"reader" type: "Power" bottom: "x"', '"reader" type: "Power" bottom: "dta"'))


def test_a_net_without_a_file_gives_the_same_error_without_lines():
    with pytest.raises(NetError, match=r'^layer "reader" .*; layer "train" \(Power\) makes it, but is left out'):
        caffe.Net(text.parse(RULED, caffe_pb2.NetParameter()), caffe.TEST)


@pytest.mark.parametrize(("phase", "which"), [("TRAIN", "test net #0"), ("TEST", "train net")])
def test_a_solver_names_the_net_with_the_error(phase, which, tmp_path):
    net = tmp_path / "net.prototxt"
    net.write_text(
        f'layer {{ name: "in" type: "Input" top: "data" include {{ phase: {phase} }} '
        "input_param { shape { dim: 2 } } }\n"
        'layer { name: "p" type: "Power" bottom: "data" top: "p" }\n'
    )
    solver = tmp_path / "solver.prototxt"
    solver.write_text(f'net: "{net}" test_iter: 1 test_interval: 1 base_lr: 1 lr_policy: "fixed"')
    with pytest.raises(
        NetError, match=rf'net.prototxt:2: layer "p" .*net.prototxt:1\) makes it.*\(in the solver.s {which}\)'
    ):
        caffe.SGDSolver(str(solver))


@pytest.mark.parametrize(
    ("force", "given", "says"),
    [
        (
            "",
            "propagate_down: true propagate_down: true",
            "write propagate_down: true propagate_down: false in the layer",
        ),
        (
            "force_backward: true",
            "",
            "asks for one; remove force_backward, which overrides propagate_down, and write prop",
        ),
    ],
)
def test_the_advice_against_a_missing_gradient_helps(force, given, says, tmp_path):
    source = f"""{force}
    layer {{ name: "in" type: "Input" top: "x" top: "i"
        input_param {{ shape {{ dim: 2 dim: 3 }} shape {{ dim: 2 }} }} }}
    layer {{ name: "ip" type: "InnerProduct" bottom: "i" top: "j" inner_product_param {{ num_output: 1 axis: 0 }} }}
    layer {{ name: "t" type: "Tile" bottom: "j" top: "k" tile_param {{ axis: 0 tiles: 2 }} }}
    layer {{ name: "b" type: "BatchReindex" bottom: "x" bottom: "k" top: "y" {given} loss_weight: 1 }}
    """
    net = build(tmp_path, source, phase=caffe.TRAIN)
    net.forward()
    with pytest.raises(LayerError) as info:
        net.backward()
    assert says in str(info.value)
    advised = source.replace("force_backward: true", "").replace(
        given or "loss_weight", "propagate_down: true propagate_down: false" + ("" if given else " loss_weight")
    )
    net = build(tmp_path, advised, phase=caffe.TRAIN)
    net.forward()
    net.backward()


@pytest.mark.parametrize(
    "kind", ["SoftmaxWithLoss", "Accuracy", "HingeLoss", "MultinomialLogisticLoss", "InfogainLoss"]
)
@pytest.mark.parametrize(("number", "name"), [(math.nan, "NaN"), (math.inf, "infinity"), (-math.inf, "-infinity")])
def test_a_label_that_is_no_number_is_called_so(kind, number, name, tmp_path):
    source = f"""layer {{ name: "in" type: "Input" top: "x" top: "label"
        input_param {{ shape {{ dim: 2 dim: 3 }} shape {{ dim: 2 }} }} }}
    layer {{ name: "l" type: "{kind}" bottom: "x" bottom: "label" top: "y" }}
    """
    if kind == "InfogainLoss":
        source = source.replace('"label"\n', '"label" top: "h"\n').replace(
            "shape { dim: 2 } }", "shape { dim: 2 } shape { dim: 3 dim: 3 } }"
        )
        source = source.replace('bottom: "label"', 'bottom: "label" bottom: "h"')
    net = build(tmp_path, source)
    net.blobs["label"].data[...] = 1, number
    with pytest.raises(
        CaffeError, match=rf'"label" holds the label {name} \(element 1\), expected 0 to 2 for 3 classes; cor'
    ):
        net.forward()


@pytest.mark.parametrize(
    ("options", "shape", "says"),
    [
        (
            "crop_size: 24",
            (28, 28, 1),
            "smaller than crop_size 24; the channels seem to be last (an image of 28 x 28 with 1 c",
        ),
        ("crop_size: 24", (3, 20, 28), "enlarge the image or lower crop_size"),
        ("crop_size: 24", (3, 20, 3), "enlarge the image or lower crop_size"),
        (
            "mean_value: 1 mean_value: 2 mean_value: 3",
            (32, 32, 3),
            "mean_value is given 3 times; the channels seem to be last",
        ),
    ],
)
def test_channels_that_are_last_are_called_so(options, shape, says):
    param = text.parse(options, caffe_pb2.TransformationParameter())
    with pytest.raises(DataError) as info:
        BatchTransformer(param, caffe.TEST).crop_shape(shape)
    assert says in str(info.value)


@pytest.mark.parametrize(("number", "name"), [(math.nan, "NaN"), (math.inf, "infinity"), (7.5, "7")])
def test_an_index_that_is_no_number_is_called_so(number, name):
    with pytest.raises(LayerError, match=f"holds the index {name}, expected 0 to 3"):
        apply("BatchReindex", "", torch.ones(4, 2), torch.tensor([1, number]))
