"""The results of layers for NaN and infinity. Expected values are those of the original on a CPU, unless a test states
something else. docs/porting.md lists the differences."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
import torch
from google.protobuf import text_format

import caffe
from caffe.proto import caffe_pb2
from tests.layers.build import apply, build

ROWS = [[nan, 1, 2], [1, nan, 2], [1, 2, nan], [nan, nan, nan], [inf, 1, 1], [-inf, 1, 2]]


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64, requires_grad=True)


def gradients(top: torch.Tensor, *bottoms: torch.Tensor) -> list:
    (heads,) = [torch.arange(1.0, top.numel() + 1, dtype=torch.float64).view(top.shape)]
    return [grad.tolist() for grad in torch.autograd.grad(top, bottoms, heads)]


@pytest.mark.parametrize(
    ("scores", "loss", "slopes"),
    [
        (ROWS[0], 3, [0, 0, 1]),
        (ROWS[1], 5, [1, 0, 1]),
        (ROWS[2], 2, [1, 0, 0]),
        (ROWS[3], 0, [0, 0, 0]),
        (ROWS[4], inf, [1, 0, 1]),
        (ROWS[5], 3, [0, 0, 1]),
    ],
)
def test_hinge_loss_passes_over_nan(scores, loss, slopes):
    x = row(*scores)
    made = build("HingeLoss", "", (1, 3), (1,))(x, torch.tensor([1.0]))
    assert made.item() == loss
    np.testing.assert_array_equal(torch.autograd.grad(made, x)[0], [slopes])


@pytest.mark.parametrize("legacy", ["true", "false"])
@pytest.mark.parametrize("scores", ROWS)
def test_contrastive_loss_has_no_gradient_for_pairs_at_no_distance(scores, legacy):
    a, b = row(*scores), row(1, 2, 3)
    layer = build("ContrastiveLoss", f"contrastive_loss_param {{ legacy_version: {legacy} }}", (1, 3), (1, 3), (1,))
    loss = layer(a, b, torch.tensor([0.0]))
    np.testing.assert_equal(loss.item(), 0.0 if inf in map(abs, scores) else nan)
    for grad in torch.autograd.grad(loss, (a, b)):
        np.testing.assert_array_equal(grad, [[0, 0, 0]])


def test_the_largest_of_two_takes_the_second_where_either_is_nan():
    a, b, c = row(nan, 1, nan, 0), row(1, nan, nan, 0), row(2, 2, 2, nan)
    two = apply("Eltwise", "eltwise_param { operation: MAX }", a, b)
    np.testing.assert_array_equal(two.detach(), [[1, nan, nan, 0]])
    assert gradients(two, a, b) == [[[0, 0, 0, 0]], [[1, 2, 3, 4]]]
    three = apply("Eltwise", "eltwise_param { operation: MAX }", a, b, c)
    np.testing.assert_array_equal(three.detach(), [[2, nan, nan, 0]])
    assert gradients(three, a, b, c) == [[[0, 0, 0, 0]], [[0, 2, 3, 4]], [[1, 0, 0, 0]]]


def test_nan_is_above_no_threshold_and_stays_in_other_functions():
    x = [[nan, -1, 2, 0.5]]
    np.testing.assert_array_equal(apply("Threshold", "", x), [[0, 0, 1, 1]])
    assert apply("Softmax", "", x).isnan().all()
    for kind in (
        "ReLU",
        "ELU",
        "PReLU",
        "Sigmoid",
        "TanH",
        "AbsVal",
        "BNLL",
        "Exp",
        "Log",
        "Power",
        "Swish",
        "Dropout",
    ):
        assert apply(kind, "", x, phase=1)[0, 0].isnan(), kind
    leaky = apply("ReLU", "relu_param { negative_slope: 0.5 }", x)
    np.testing.assert_array_equal(leaky, [[nan, -0.5, 2, 0.5]])


def test_maximum_of_a_window_with_nan_is_nan():
    """The original ignores NaN, and its result here is 1, 2, 3. docs/porting.md gives the reason for the difference."""
    x = torch.tensor([nan, 1, 2, 3], dtype=torch.float64, requires_grad=True)
    bottom = x.view(1, 1, 1, 4)
    options = "pooling_param { kernel_h: 1 kernel_w: 2 stride: 1 }"
    top, mask = apply("Pooling", options, bottom, tops=2)
    np.testing.assert_array_equal(top.detach().flatten(), [nan, 2, 3])
    assert mask.flatten().tolist() == [0, 2, 3]
    alone = apply("Pooling", options, bottom)
    np.testing.assert_array_equal(alone.detach().flatten(), [nan, 2, 3])
    assert gradients(alone, x) == [[1, 0, 2, 3]]


def test_largest_class_is_nan_and_the_accuracy_then_zero():
    """In the original, both results depend on the comparisons of its sort; see docs/porting.md."""
    x = [[1.0, nan, -2, 3]]
    assert apply("ArgMax", "", x).item() == 1
    for label in range(4):
        assert apply("Accuracy", "", x, [float(label)]).item() == 0


@pytest.mark.parametrize("how", ["module", "optimize", "openvino"])
@pytest.mark.parametrize("kernel", [2, 3])
def test_every_way_to_run_a_net_pools_nan_alike(how, kernel):
    text = f"""
    layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 dim: 9 dim: 7 }} }} }}
    layer {{ name: "c" type: "Convolution" bottom: "x" top: "c"
      convolution_param {{ num_output: 8 kernel_size: 1 weight_filler {{ type: "xavier" }} }} }}
    layer {{ name: "r" type: "ReLU" bottom: "c" top: "c" }}
    layer {{ name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param {{ kernel_size: {kernel} stride: 2 }} }}"""
    net = caffe.Net(text_format.Parse(text, caffe_pb2.NetParameter()), caffe.TEST)
    x = np.random.default_rng(1).standard_normal((2, 3, 9, 7))
    x[0, 1, 4, 2], x[1, :, :4, :4], x[1, 0, 8, 6] = nan, nan, inf
    net.blobs["x"].data[...] = x
    expected = net.forward()["p"].copy()
    assert 0 < np.isnan(expected).sum() < expected.size / 2
    if how == "openvino":
        pytest.importorskip("openvino")
    if how == "module":
        net.module.evaluate()
    else:
        net.optimize(engine="openvino" if how == "openvino" else "torch")
        net.forward()
    np.testing.assert_allclose(net.blobs["p"].data, expected, rtol=1e-5)
