"""SoftmaxWithLoss uses different algorithms for small batches, short rows and improbable labels, with equal results."""

from __future__ import annotations

import numpy as np
import pytest

import caffe
from caffe.proto import caffe_pb2, text

NET = """
force_backward: true
layer {{ name: "in" type: "Input" top: "x" top: "t"
  input_param {{ shape {{ dim: {0} dim: {1} }} shape {{ dim: {0} }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "x" bottom: "t" top: "loss" }}
"""


def made(x: np.ndarray, label: np.ndarray) -> tuple[float, np.ndarray]:
    net = caffe.Net(text.parse(NET.format(*x.shape), caffe_pb2.NetParameter()), caffe.TRAIN)
    net.blobs["x"].data[...], net.blobs["t"].data[...] = x, label
    loss = net.forward()["loss"].item()
    net.backward()
    return loss, net.blobs["x"].diff


@pytest.mark.parametrize("classes", [2, 10, 15, 16, 40])
@pytest.mark.parametrize("batch", [1, 63, 64, 8000])
def test_the_ways_agree_with_the_equation(batch, classes):
    rng = np.random.default_rng(batch + classes)
    x, label = rng.standard_normal((batch, classes)), rng.integers(0, classes, batch)
    probability = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    loss, diff = made(x, label)
    assert loss == pytest.approx(-np.log(probability[np.arange(batch), label]).mean(), rel=1e-5)
    expected = probability.copy()
    expected[np.arange(batch), label] -= 1
    np.testing.assert_allclose(diff * batch, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [2, 64])
def test_the_loss_of_an_improbable_label_is_clamped_and_its_gradient_is_not(batch):
    x, label = np.zeros((batch, 3)), np.zeros(batch)
    x[0] = -200, 0, 0
    loss, diff = made(x, label)
    others = (batch - 1) * np.log(3)
    assert loss == pytest.approx((others - np.log(1.1754943508222875e-38)) / batch, rel=1e-6)
    np.testing.assert_allclose(diff[0] * batch, [-1, 0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize("label", [-1, 3, np.nan, -(2.0**62)])
@pytest.mark.parametrize("batch", [2, 64, 30000])
def test_a_wrong_label_is_named(batch, label):
    labels = np.zeros(batch)
    labels[1] = label
    with pytest.raises(caffe.errors.LayerError, match=r"label .*\(element 1\)"):
        made(np.zeros((batch, 3)), labels)
