"""Loading weights from files."""

from __future__ import annotations

import numpy as np
import pytest

import caffe
from caffe.net import Net, store
from caffe.proto import caffe_pb2, text, weights

NET = """layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 5 dim: 7 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 11 kernel_size: 3 } }
layer { name: "relu" type: "PReLU" bottom: "c" top: "c" prelu_param { channel_shared: true } }
layer { name: "ip" type: "InnerProduct" bottom: "c" top: "ip" inner_product_param { num_output: 13 } }
"""


@pytest.mark.parametrize("part", [1, 7, 50, 2**20])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_number_arrives_however_the_work_is_shared(part, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_PART", part)
    param = text.parse(NET, caffe_pb2.NetParameter())
    net = Net(param, caffe.TEST)
    rng = np.random.default_rng(1)
    data = {
        layer.name: [rng.normal(size=blob.shape).astype(dtype) for blob in layer.blobs]
        for layer in net.layers
        if layer.blobs
    }
    weights.write(tmp_path / "net.caffemodel", param, data)
    net.copy_from(tmp_path / "net.caffemodel")
    for name, arrays in data.items():
        for blob, array in zip(net.params[name], arrays, strict=True):
            np.testing.assert_array_equal(blob.data, array.astype(np.float32))
