"""The time of each layer, and that the measurement changes nothing in the net."""

from __future__ import annotations

import numpy as np
import torch

import caffe
from caffe.net import Net
from caffe.net.measure.times import layer_seconds
from caffe.proto import caffe_pb2, text

NET = """
layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 }
  shape { dim: 4 } data_filler { type: "gaussian" } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv" convolution_param { num_output: 4 kernel_size: 3
  weight_filler { type: "xavier" } } }
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "norm" }
layer { name: "relu" type: "ReLU" bottom: "norm" top: "norm" }
layer { name: "drop" type: "Dropout" bottom: "norm" top: "norm" }
layer { name: "own" type: "Python" bottom: "norm" top: "own" python_param {
  module: "tests.net.test_times" layer: "Own" } }
layer { name: "ip" type: "InnerProduct" bottom: "own" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" }
"""


class Own(caffe.Layer):
    """A layer of a user. The measurement must not run it."""

    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        raise AssertionError("the layer ran")


def test_every_layer_except_those_of_users_has_a_time_and_nothing_changes():
    net = Net(text.parse(NET, caffe_pb2.NetParameter()), caffe_pb2.TRAIN, device="cpu")
    before = [np.array(blob.data) for layer in net.layers for blob in layer.blobs]
    random = torch.get_rng_state()
    times = dict(zip(net.layer_names, layer_seconds(net.steps, net.device), strict=True))
    assert times.pop("own") is None
    assert times.pop("x") == 0
    assert all(spent > 0 for spent in times.values())
    assert torch.equal(torch.get_rng_state(), random)
    after = [np.array(blob.data) for layer in net.layers for blob in layer.blobs]
    assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))
    assert all(entry.tensor.grad is None for entry in net.learnable)
    net.close()
