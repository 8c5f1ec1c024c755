"""Depthwise convolutions of forks equal a grouped Convolution, and use the same fast paths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import caffe
from caffe.net.plan.rewrite.product import FusedProduct
from caffe.proto import caffe_pb2, text
from tests.layers.build import assert_rejected

NAMES = ("DepthwiseConvolution", "ConvolutionDepthwise")
NET = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 8 dim: 7 dim: 9 } } }
layer { name: "c" type: "%s" bottom: "x" top: "c" convolution_param { %s kernel_size: 3 pad: 1
  weight_filler { type: "xavier" } bias_filler { type: "uniform" } } }
layer { name: "n" type: "BatchNorm" bottom: "c" top: "c" }
layer { name: "s" type: "Scale" bottom: "c" top: "c" scale_param { bias_term: true } }
layer { name: "r" type: "ReLU" bottom: "c" top: "c" }
"""


def net(kind: str, sizes: str) -> caffe.Net:
    torch.manual_seed(3)
    made = caffe.Net(text.parse(NET % (kind, sizes), caffe_pb2.NetParameter()), caffe.TEST)
    for name, values in (("c", (0.3, 0.1)), ("s", (2, 0.5)), ("n", (0.2, 1.5, 1))):
        for blob, value in zip(made.params[name], values, strict=True):
            blob.data[...] = value + np.arange(blob.data.size).reshape(blob.shape) % 5 / 10
    made.blobs["x"].data[...] = np.random.default_rng(1).normal(size=made.blobs["x"].shape)
    return made


@pytest.mark.parametrize("kind", NAMES)
def test_it_is_the_grouped_convolution(kind):
    grouped, other = net("Convolution", "num_output: 8 group: 8"), net(kind, "")
    assert [blob.shape for blob in other.params["c"]] == [blob.shape for blob in grouped.params["c"]]
    expected = grouped.forward()["c"].copy()
    np.testing.assert_array_equal(other.forward()["c"], expected)
    other.optimize()
    np.testing.assert_allclose(other.forward()["c"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["Convolution", *NAMES])
def test_it_is_fused_with_what_follows(kind, monkeypatch):
    made = []
    before = FusedProduct.folded
    monkeypatch.setattr(FusedProduct, "folded", lambda product: made.append(len(product.scales)) or before(product))
    one = net(kind, "num_output: 8 group: 8")
    one.optimize()
    one.forward()
    assert made == [2], "BatchNorm and Scale go into the weights"


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("options", ["num_output: 6", "group: 3"])
def test_filters_that_are_not_one_a_channel_are_refused(kind, options):
    says = f"{options.replace(':', ' is')} and the bottom has 8 channels"
    assert_rejected(kind, f"convolution_param {{ {options} kernel_size: 3 }}", (2, 8, 5, 5), says=says)
