"""The gradient check accepts correct gradients near kinks and clamps and in float32, and finds seeded mistakes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from caffe.cli import main
from caffe.layers import Layer
from caffe.net import Net
from caffe.net.measure import gradient_check
from caffe.proto import caffe_pb2
from tests.layers.cases import CASES


def check(tmp_path, text: str, phase: int = caffe_pb2.TRAIN, **data: np.ndarray) -> dict[str, set[str]]:
    """Return the verdict on each layer of a net. `data` are the values of the Input blobs."""
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    net = Net(path, phase)
    return {
        layer.name: {", ".join([slope.verdict, *slope.notes]) for slope in slopes}
        for layer, slopes in gradient_check.check_gradients(net)
    }


def dummy(shape: tuple[int, ...], filler: str, name: str = "data") -> str:
    dims = " ".join(f"dim: {size}" for size in shape)
    return f"""layer {{ name: "{name}" type: "DummyData" top: "{name}"
        dummy_data_param {{ shape {{ {dims} }} data_filler {{ {filler} }} }} }}\n"""


FIRST = {case.type: case for case in reversed(CASES)}
QUICK = list(FIRST.values())[::3]
"""A case for every third type. The tests of the layers also check the gradients of every type numerically."""


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=str(case), marks=[pytest.mark.long] * (case not in QUICK)) for case in CASES],
)
def test_each_layer_type_gets_a_right_verdict(case, tmp_path):
    verdicts = check(tmp_path, case.net(), case.phase).get("layer", set())
    assert {verdict.partition(",")[0] for verdict in verdicts} <= {"right"}


@pytest.mark.parametrize(
    "layer",
    [
        'type: "Pooling" pooling_param { kernel_size: 2 stride: 2 }',
        'type: "ReLU"',
        'type: "PReLU"',
        'type: "AbsVal"',
        'type: "Clip" clip_param { min: -1e-6 max: 1e-6 }',
        'type: "Threshold" threshold_param { threshold: 0 }',
    ],
    ids=lambda text: text.split('"')[1],
)
def test_many_kinks_within_the_step(layer, tmp_path, monkeypatch):
    """Many values differ from a kink or from each other by less than 1e-5, like the pixels of the background of an
    image.
    """
    monkeypatch.setattr(gradient_check, "_moved", lambda x, generator: (x.clone()).requires_grad_())
    net = dummy((20, 8, 24, 24), 'type: "gaussian" std: 1e-6') + dummy((1,), 'type: "constant" value: 1', "one")
    text = net + f'layer {{ name: "layer" {layer} bottom: "sum" top: "top" }}'
    # some values of usual size, so that the step has the usual size
    mixed = """layer { name: "big" type: "DummyData" top: "big"
        dummy_data_param { shape { dim: 20 dim: 8 dim: 1 dim: 24 } data_filler { type: "gaussian" std: 5 } } }
        layer { name: "sum" type: "Concat" bottom: "data" bottom: "big" top: "sum" concat_param { axis: 2 } }
        layer { name: "none" type: "Silence" bottom: "one" }\n"""
    text = text.replace('layer { name: "layer"', mixed + 'layer { name: "layer"')
    assert check(tmp_path, text)["layer"] <= {"right"}


def test_clamped_elements_are_reported_and_skipped(tmp_path):
    net = dummy((7, 5), 'type: "gaussian" std: 300') + dummy((7,), 'type: "constant" value: 2', "label")
    text = net + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "data" bottom: "label" top: "loss" }'
    (verdict,) = check(tmp_path, text)["loss"]
    assert verdict.startswith("right, ")
    assert verdict.endswith("of 7 clamped")


def test_values_that_are_no_numbers_do_not_spoil_the_layers_after(tmp_path):
    text = (
        dummy((7, 5), 'type: "gaussian" std: 1')
        + """
        layer { name: "log" type: "Log" bottom: "data" top: "log" }
        layer { name: "ip" type: "InnerProduct" bottom: "log" top: "ip"
            inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }"""
    )
    verdicts = check(tmp_path, text)
    assert verdicts["log"] == verdicts["ip"] == {"right"}


class _OnePercent(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return 3 * x

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        return 3.03 * grads[0]


class _OneSign(_OnePercent):
    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        grad = 3 * grads[0]
        grad.view(-1)[grad.abs().argmax()] *= -1
        return grad


class _Negative(_OnePercent):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return 3 * x

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.where(x < 0, 2.9, 3.0) * grads[0]


class _Single(_OnePercent):
    """A correct gradient, computed in float32."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return (3 * x.float()).to(x)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        return 3 * grads[0]


@pytest.mark.parametrize(
    ("function", "after", "verdict"),
    [
        *((_OnePercent, after, "WRONG") for after in ("", "relu", "pool")),
        *((_OneSign, after, "WRONG") for after in ("", "relu", "pool")),
        *((_Negative, after, "WRONG") for after in ("", "pool")),
        *((_Single, after, "right") for after in ("", "relu", "pool")),
    ],
)
@pytest.mark.usefixtures("own_types")
def test_seeded_gradients(function, verdict, after, tmp_path, monkeypatch):
    class Seeded(Layer, options={}):
        def forward(self, x: Tensor) -> Tensor:
            y = function.apply(x)
            if after == "relu":
                return torch.relu(y)
            return torch.nn.functional.max_pool2d(y, 2) if after == "pool" else y

    text = (
        dummy((6, 8, 22, 22), 'type: "gaussian" std: 1') + 'layer { name: "s" type: "Seeded" bottom: "data" top: "s" }'
    )
    verdicts = check(tmp_path, text)["s"]
    assert verdict in verdicts
    if verdict == "right":
        assert verdicts == {"right"}
    monkeypatch.chdir(tmp_path)
    assert main(["check", "net.prototxt", "-minloglevel", "2"]) == (verdict == "WRONG")
