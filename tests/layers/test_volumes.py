"""C3D's layers, compared with PyTorch's and with explicit values, and the errors for invalid options."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import caffe
from caffe.proto import caffe_pb2, text
from tests.layers.build import apply, assert_rejected, build

SHAPE = (2, 2, 5, 6, 7)
SIZES = "num_output: 3 kernel_size: 3 kernel_depth: 2 pad: 1 temporal_pad: 1 stride: 2 temporal_stride: 2"


@pytest.mark.parametrize("field", ["convolution_param", "convolution3d_param"])
def test_convolution3d_has_sizes_of_its_own_for_frames(field):
    layer = build("Convolution3D", f"{field} {{ {SIZES} filter_group: 3 }}", SHAPE)
    weight, bias = layer.tensors
    assert [tuple(weight.shape), tuple(bias.shape)] == [(3, 2, 2, 3, 3), (1, 1, 1, 1, 3)]
    x = torch.randn(SHAPE, dtype=torch.float64)
    expected = F.conv3d(x, weight, bias.flatten(), (2, 2, 2), (1, 1, 1))
    torch.testing.assert_close(layer(x)[0], expected)


def test_deconvolution3d_is_its_adjoint():
    layer = build("Deconvolution3D", f"convolution_param {{ {SIZES} }}", SHAPE)
    weight, bias = layer.tensors
    assert tuple(weight.shape) == (2, 3, 2, 3, 3)
    x = torch.randn(SHAPE, dtype=torch.float64)
    torch.testing.assert_close(layer(x)[0], F.conv_transpose3d(x, weight, bias.flatten(), (2, 2, 2), (1, 1, 1)))


@pytest.mark.parametrize("field", ["pooling_param", "pooling3d_param"])
@pytest.mark.parametrize(("pool", "pad"), [("MAX", 0), ("AVE", 1)])
def test_pooling3d_takes_the_cells_that_there_are(field, pool, pad):
    x = np.random.default_rng(1).normal(size=SHAPE)
    options = f"pool: {pool} kernel_size: 3 kernel_depth: 2 stride: 2 temporal_stride: 2 pad: {pad}"
    y = apply("Pooling3D", f"{field} {{ {options} }}", x).numpy()
    assert y.shape == (2, 2, 3, 4, 4) if pad else (2, 2, 3, 3, 3)
    for place in np.ndindex(*y.shape[2:]):
        start = [2 * i - p for i, p in zip(place, (0, pad, pad), strict=True)]
        stop = [min(a + k, n + p) for a, k, n, p in zip(start, (2, 3, 3), SHAPE[2:], (0, pad, pad), strict=True)]
        part = x[(..., *(slice(max(a, 0), b) for a, b in zip(start, stop, strict=True)))]
        count = np.prod([b - a for a, b in zip(start, stop, strict=True)])
        expected = part.max((2, 3, 4)) if pool == "MAX" else part.sum((2, 3, 4)) / count
        np.testing.assert_allclose(y[(..., *place)], expected, rtol=1e-12)


def test_a_net_of_2014_with_layers_of_c3d():
    net = """
    input: "x" input_shape { dim: 2 dim: 3 dim: 4 dim: 8 dim: 8 }
    layers { name: "c" type: CONVOLUTION3D bottom: "x" top: "c" blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0
      convolution_param { num_output: 4 kernel_size: 3 kernel_depth: 3 pad: 1 temporal_pad: 1
        weight_filler { type: "gaussian" std: 0.01 } bias_filler { type: "constant" value: 1 } } }
    layers { name: "p" type: POOLING3D bottom: "c" top: "p"
      pooling_param { pool: MAX kernel_size: 2 kernel_depth: 1 stride: 2 temporal_stride: 1 } }
    layers { name: "d" type: DECONVOLUTION3D bottom: "p" top: "d" convolution_param { num_output: 5 kernel_size: 4
      kernel_depth: 4 pad: 1 temporal_pad: 1 stride: 2 temporal_stride: 2 weight_filler { type: "xavier" } } }
    layers { name: "s" type: VOXEL_SOFTMAX bottom: "d" top: "s" }
    """
    stepwise, whole = (caffe.Net(text.parse(net, caffe_pb2.NetParameter()), caffe.TEST) for _ in range(2))
    for blobs, values in zip(whole.params.values(), stepwise.params.values(), strict=True):
        for blob, value in zip(blobs, values, strict=True):
            blob.data[...] = value.data
    whole.optimize()
    x = np.random.default_rng(2).normal(size=(2, 3, 4, 8, 8))
    np.testing.assert_allclose(whole.forward(x=x)["s"], stepwise.forward(x=x)["s"], rtol=1e-5)
    assert stepwise.blobs["s"].shape == (2, 5, 8, 8, 8)
    np.testing.assert_allclose(stepwise.blobs["s"].data.sum(1), 1, rtol=1e-5)


def test_voxels_whose_label_is_no_class_add_nothing_and_keep_a_gradient():
    layer = build("VoxelSoftmaxWithLoss", "", (1, 2, 1, 1, 2), (1, 1, 1, 1, 2))
    x = torch.tensor([[[[[1.0, 4]]], [[[3, 2]]]]], dtype=torch.float64, requires_grad=True)
    loss = layer(x, torch.tensor([[[[[1.0, 255]]]]]))
    loss.backward()
    share = torch.softmax(x.detach(), 1)
    assert loss.item() == pytest.approx(-np.log(share[0, 1, 0, 0, 0].item()) / 2)
    share[0, 1, 0, 0, 0] -= 1
    torch.testing.assert_close(x.grad, share / 2)


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("Convolution3D", "convolution_param { num_output: 2 kernel_size: 3 }", "kernel_depth must be given"),
        ("Convolution3D", "convolution_param { kernel_size: 3 kernel_depth: 1 }", "num_output must be given"),
        ("Convolution3D", "convolution_param { kernel_depth: 3 } convolution3d_param { }", "keep one"),
        ("Convolution3D", f"convolution_param {{ {SIZES} group: 2 }}", "group is 2; C3D has no groups"),
        ("Convolution3D", f"convolution_param {{ {SIZES} dilation: 2 }}", "dilation is not C3D's"),
        ("Convolution3D", f"convolution_param {{ {SIZES} pad_h: 2 }}", "pad_h is not C3D's"),
        ("Deconvolution3D", f"convolution_param {{ {SIZES} kernel_size: 2 }}", "kernel_size is given 2 times"),
        ("Pooling3D", "pooling_param { kernel_size: 2 kernel_depth: 2 pad: 1 }", "pad is for pool: AVE only"),
        ("Pooling3D", "pooling_param { kernel_size: 2 kernel_depth: 9 }", "do not fit a bottom of 5 6 7"),
        ("Pooling3D", "pooling_param { kernel_size: 1 kernel_depth: 1 stride: 5 }", "some hold no cell"),
        ("Pooling3D", "pooling_param { global_pooling: true kernel_size: 1 kernel_depth: 1 }", "global_pooling is not"),
        ("Pooling3D", "pooling_param { pool: STOCHASTIC kernel_size: 1 kernel_depth: 1 }", "STOCHASTIC"),
    ],
)
def test_bad_options_are_refused(kind, options, says):
    assert_rejected(kind, options, SHAPE, says=says)


@pytest.mark.parametrize("kind", ["Convolution3D", "Deconvolution3D", "Pooling3D"])
def test_bottoms_have_five_axes(kind):
    assert_rejected(kind, "", (2, 3, 4, 5), says="expected (N, C, L, H, W)")


def test_labels_are_one_for_each_voxel():
    assert_rejected("VoxelSoftmaxWithLoss", "", (1, 2, 1, 2, 2), (1, 1, 1, 2, 1), says="has 2 labels, expected 4")
