"""Nets whose inputs change size: shapes and kernels are cached for each size, and equal those of a new net of that
size.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from google.protobuf import text_format

import caffe
from caffe.layers.base import Layer
from caffe.layers.convolution import Convolution
from caffe.net.graph import shapes
from caffe.net.plan.rewrite.product import FusedProduct
from caffe.proto import caffe_pb2

NET = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: %d dim: %d } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "c"
        convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "c" top: "c" }
layer { name: "pool" type: "Pooling" bottom: "c" top: "p" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "next" type: "Convolution" bottom: "p" top: "y"
        convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "xavier" } } }
"""
SIZES = [(9, 7), (12, 12), (9, 7), (30, 21), (12, 12), (9, 7)]


def build(height: int = 9, width: int = 7) -> caffe.Net:
    return caffe.Net(text_format.Parse(NET % (height, width), caffe_pb2.NetParameter()), caffe.TEST)


def run(net: caffe.Net, size: tuple[int, int], reshape: bool = True) -> np.ndarray:
    if reshape:
        net.blobs["x"].reshape(1, 3, *size)
        net.reshape()
    net.blobs["x"].data[...] = np.sin(np.arange(3 * size[0] * size[1])).reshape(1, 3, *size)
    return net.forward()["y"].copy()


@pytest.mark.parametrize("optimized", [False, True])
def test_a_net_that_changes_size_computes_what_a_net_of_that_size_computes(optimized):
    net = build()
    if optimized:
        net.optimize()
    for size in SIZES:
        alone = build(*size)
        alone.share_with(net)
        np.testing.assert_allclose(run(net, size), run(alone, size, reshape=False), rtol=1e-5, atol=1e-6)


def test_shapes_of_a_size_seen_before_are_not_inferred_again(monkeypatch):
    net = build()
    for size in SIZES[:2]:
        run(net, size)
    monkeypatch.setattr(shapes, "_inferred", lambda *_: pytest.fail("inferred again"))
    for size in SIZES[:3]:
        run(net, size)


def test_layers_of_users_run_at_each_reshape(own_types):
    class Growing(Layer):
        """A layer of a user, with a state."""

        size = 1

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.new_zeros(self.size)

    text = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 } } }'
    text += 'layer { name: "grow" type: "Growing" bottom: "x" top: "y" }'
    net = caffe.Net(text_format.Parse(text, caffe_pb2.NetParameter()), caffe.TEST)
    assert net.blobs["y"].shape == (1,)
    net.layers[1].size = 5
    net.reshape()
    assert net.blobs["y"].shape == (5,)


def test_kernels_of_sizes_seen_before_are_kept_until_the_weights_change():
    net = build()
    fused = FusedProduct(next(layer for layer in net.layers if type(layer) is Convolution))
    fused.refresh()
    small, large = torch.ones(1, 3, 9, 7), torch.ones(1, 3, 12, 12)
    before = fused(small).clone()
    fused(large)
    kept = dict(fused._kernels)
    fused(small)
    assert len(kept) == 2
    assert fused._kernels == kept
    net.params["conv"][0].data[...] *= 2
    fused.refresh()
    bias = torch.from_numpy(net.params["conv"][1].data).view(1, -1, 1, 1)
    torch.testing.assert_close(fused(small) - bias, 2 * (before - bias))


def test_an_error_in_a_layer_leaves_autograd_as_it_was(own_types):
    class Broken(Layer):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not x.is_meta:
                raise ValueError("broken")
            return x * 2

    text = 'force_backward: true layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 } } }'
    net = caffe.Net(
        text_format.Parse(text + 'layer { name: "b" type: "Broken" bottom: "x" top: "y" }', caffe_pb2.NetParameter()),
        caffe.TEST,
    )
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            with pytest.raises(caffe.CaffeError, match="broken"):
                net.forward_step(1)
            assert torch.is_grad_enabled() == enabled
