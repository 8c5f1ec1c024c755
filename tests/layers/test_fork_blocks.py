"""Small blocks and segmentation layers of forks, compared with explicit values, and the errors for invalid options."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import caffe
from caffe.errors import LayerError
from caffe.proto import caffe_pb2, text
from caffe.proto.caffe_pb2 import TEST, TRAIN
from tests.layers.alone import alone
from tests.layers.build import apply, assert_rejected

X = np.arange(1.0, 7).reshape(1, 1, 2, 3)


def bilinear(x: np.ndarray, rows: list[float], columns: list[float]) -> np.ndarray:
    """Interpolate x (H, W) at these positions; cells outside x count as 0."""
    wide = np.pad(x, ((0, 1), (0, 1)))
    y = np.zeros((len(rows), len(columns)))
    for i, h in enumerate(rows):
        for j, w in enumerate(columns):
            for a in (0, 1):
                for b in (0, 1):
                    share = abs(1 - a - h % 1) * abs(1 - b - w % 1)
                    y[i, j] += share * wide[int(h) + a, int(w) + b]
    return y


def test_upsample_with_one_bottom_copies_cells():
    expected = X.repeat(2, 2).repeat(2, 3)
    np.testing.assert_array_equal(apply("Upsample", "upsample_param { scale: 2 }", X), expected)


def test_upsample_with_two_bottoms_undoes_a_pooling():
    x = np.random.default_rng(1).permutation(2 * 3 * 4 * 6).reshape(2, 3, 4, 6) + 1.0
    pooled, mask = apply("Pooling", "pooling_param { kernel_size: 2 stride: 2 }", x, tops=2)
    y = apply("Upsample", "upsample_param { scale: 2 }", pooled, mask)
    largest = pooled.numpy().repeat(2, 2).repeat(2, 3)
    np.testing.assert_array_equal(y, np.where(x == largest, x, 0))
    given = apply("Upsample", "upsample_param { scale: 3 upsample_h: 4 upsample_w: 6 }", pooled, mask)
    assert torch.equal(given, y)
    deconvnet = apply("UNPOOLING", "unpooling_param { kernel_size: 2 stride: 2 unpool_h: 4 unpool_w: 6 }", pooled, mask)
    assert torch.equal(deconvnet, y)


def test_upsample_leaves_off_a_row_where_pooling_had_an_odd_size():
    mask = np.zeros((1, 1, 2, 3))
    y = apply("Upsample", "upsample_param { pad_out_h: true }", X, mask)
    assert y.shape == (1, 1, 3, 6)
    assert y[0, 0, 0, 0] == 6  # the last of several values at the same position


@pytest.mark.parametrize("kind", ["Upsample", "UNPOOLING"])
def test_a_mask_beyond_the_top_is_an_error(kind):
    options = "unpooling_param { kernel_size: 2 }" if kind == "UNPOOLING" else ""
    with pytest.raises(LayerError, match=r'bottom "b1" holds the place 99, expected 0 to'):
        apply(kind, options, X, np.full_like(X, 99))


def test_unpooling_without_a_mask():
    corner = apply("UNPOOLING", "unpooling_param { kernel_size: 2 stride: 2 unpool_h: 4 unpool_w: 6 }", X)
    np.testing.assert_array_equal(corner[0, 0, ::2, ::2], X[0, 0])
    assert corner.sum() == X.sum()
    tile = apply("UNPOOLING", "unpooling_param { unpool: TILE kernel_size: 2 stride: 2 unpool_h: 4 unpool_w: 6 }", X)
    np.testing.assert_array_equal(tile, X.repeat(2, 2).repeat(2, 3))
    mean = apply("UNPOOLING", "unpooling_param { unpool: AVE kernel_size: 2 stride: 2 unpool_h: 4 unpool_w: 5 }", X)
    expected = tile.numpy() / 4
    expected[..., 4:] = X[0, 0, :, 2].repeat(2)[:, None] / 2
    np.testing.assert_array_equal(mean, expected[..., :5])


def test_interp_aligns_corners():
    y = apply("Interp", "interp_param { zoom_factor: 2 }", X)[0, 0]
    np.testing.assert_allclose(y, bilinear(X[0, 0], [0, 0.5, 1], [0, 0.5, 1, 1.5, 2]), rtol=1e-12)
    x = np.random.default_rng(2).normal(size=(1, 1, 9, 11))
    shrunk = apply("Interp", "interp_param { shrink_factor: 2 pad_beg: -1 pad_end: -1 }", x)[0, 0]
    np.testing.assert_allclose(shrunk, x[0, 0, 1:8:2, 1:10:2], rtol=1e-12)
    both = apply("Interp", "interp_param { shrink_factor: 2 zoom_factor: 2 height: 9 width: 11 }", x)
    np.testing.assert_allclose(both, x, rtol=1e-12)  # the size takes precedence over both factors


def test_resize_counts_cells_beyond_the_bottom_as_zero():
    y = apply("RESIZE", "resize_param { height: 4 width: 5 }", X)[0, 0]
    np.testing.assert_allclose(y, bilinear(X[0, 0], [0, 0.5, 1, 1.5], [0, 0.6, 1.2, 1.8, 2.4]), rtol=1e-12)


def test_imresize_is_the_cubic_resize_of_opencv():
    cv2 = pytest.importorskip("cv2")
    x = np.random.default_rng(3).normal(size=(5, 7)).astype(np.float32)
    y = apply("ImResize", "imresize_param { factor: 8 }", x.reshape(1, 1, 5, 7).astype(float))
    np.testing.assert_allclose(y[0, 0], cv2.resize(x, (56, 40), interpolation=cv2.INTER_CUBIC), rtol=1e-4, atol=1e-4)


def test_reorg_is_darknets_exchange():
    n, c, h, w, s = 2, 8, 4, 6, 2
    x = np.random.default_rng(4).normal(size=(n, c, h, w))
    t, memory = c // (s * s), x.reshape(n, c // (s * s), h * s, w * s)
    expected = np.zeros((n, c, h, w))
    for k, i, j in np.ndindex(c, h, w):
        expected[:, k, i, j] = memory[:, k % t, i * s + k // t // s, j * s + k // t % s]
    y = apply("Reorg", "reorg_param { stride: 2 }", x)
    np.testing.assert_array_equal(y, expected.reshape(n, c * s * s, h // s, w // s))
    back = apply("Reorg", "reorg_param { stride: 2 reverse: true }", expected)
    np.testing.assert_array_equal(back, memory)


def test_small_blocks_by_hand():
    x = np.array([[-2.0, 0.5, 7, -1]])
    assert apply("ReLU6", "", x).tolist() == [[0, 0.5, 6, 0]]
    assert apply("NegReLU", "", x).tolist() == [[-2, 0, 0, -1]]
    assert apply("CReLU", "", x).tolist() == [[0, 0.5, 7, 0, 2, 0, 0, 1]]
    np.testing.assert_allclose(apply("Mish", "", x), x * np.tanh(np.log(1 + np.exp(x))), rtol=1e-12)
    expected = np.where(x > 0, 1.050700987 * x, 1.050700987 * 1.67326324 * (np.exp(x) - 1))
    np.testing.assert_allclose(apply("SELU", "", x), expected, rtol=1e-6)
    mean = 5 / np.log(2)
    np.testing.assert_allclose(apply("Insanity", "", x, phase=TEST), np.where(x > 0, x, x / mean), rtol=1e-6)
    drawn = apply("Insanity", "insanity_param { lb: 2 ub: 4 }", -np.ones((50, 40)), phase=TRAIN)
    assert -0.5 <= drawn.min() < -0.49
    assert -0.26 < drawn.max() <= -0.25
    assert apply("ShuffleChannel", "shuffle_channel_param { group: 2 }", [[0, 1, 2, 3, 4, 5]]).tolist() == [
        [0, 3, 1, 4, 2, 5]
    ]
    assert apply("Flip", "flip_param { flip_height: true }", X).tolist() == X[..., ::-1, ::-1].tolist()
    assert apply("Reverse", "reverse_param { axis: 3 }", X).tolist() == X[..., ::-1].tolist()
    assert apply("Transpose", "transpose_param { dim: [3, 2, 0, 1] }", X).shape == (3, 2, 1, 1)
    assert apply("Axpy", "", [[2.0, -1]], [[[1.0, 2], [3, 4]]], [[[10.0, 20], [30, 40]]]).tolist() == [
        [[12, 24], [27, 36]]
    ]
    assert apply("Maximum", "", [[[[1.0, 5], [5, 2]], [[-1, -2], [-3, -4]]]])[0, 0].tolist() == [[1, 0, 5]]
    assert apply("GRN", "grn_param { bias: 11 }", [[[3.0], [4]]]).flatten().tolist() == [0.5, 4 / 6]
    assert apply("ChannelNorm", "", [[[3.0], [4]]]).tolist() == [[[5]]]


def test_bn_of_segnet_uses_the_batch_in_test_too():
    layer = alone("BN", [(2, 1, 1, 2)], "bn_param { scale_filler { value: 3 } shift_filler { value: 1 } }", phase=TEST)
    y = layer(torch.tensor([[[[0.0, 2]]], [[[0, 2]]]]))
    assert [tuple(blob.shape) for blob in layer.tensors] == [(1, 1, 1, 1)] * 2
    np.testing.assert_allclose(y.detach().flatten(), [-2, 4, -2, 4], rtol=1e-6)
    folded = alone("BN", [(1, 1, 1, 2)], "bn_param { bn_mode: INFERENCE scale_filler { value: 3 } }")
    assert folded(torch.tensor([[[[0.0, 2]]]])).flatten().tolist() == [0, 6]


def test_bn_of_pspnet_keeps_running_statistics():
    options = "bn_param { slope_filler { value: 2 } bias_filler { value: 1 } momentum: 0.75 eps: 1e-12 }"
    layer = alone("BN", [(2, 1, 1, 2)], options)
    x = torch.tensor([[[[0.0, 2]]], [[[0, 2]]]]) + 4
    np.testing.assert_allclose(layer(x).detach().flatten(), [-1, 3, -1, 3], rtol=1e-6)
    slope, bias, mean, variance = layer.tensors
    assert [blob.item() for blob in (slope, bias, mean, variance)] == [2, 1, 1.25, 1]
    layer.eval()
    np.testing.assert_allclose(layer(x).detach().flatten(), 2 * (x.flatten() - 1.25) + 1, rtol=1e-6)
    assert mean.item() == 1.25


def test_layers_of_forks_run_as_one_piece_and_follow_a_new_shape():
    net = """
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 8 dim: 4 dim: 6 } } }
    layer { name: "s" type: "ShuffleChannel" bottom: "x" top: "s" shuffle_channel_param { group: 4 } }
    layer { name: "b" type: "BN" bottom: "s" top: "s" bn_param { frozen: true } }
    layer { name: "r" type: "ReLU6" bottom: "s" top: "s" }
    layer { name: "p" type: "Pooling" bottom: "s" top: "p" top: "m" pooling_param { kernel_size: 2 stride: 2 } }
    layer { name: "u" type: "Upsample" bottom: "p" bottom: "m" top: "u" }
    layer { name: "g" type: "Reorg" bottom: "u" top: "g" reorg_param { stride: 2 } }
    layer { name: "i" type: "Interp" bottom: "g" top: "i" interp_param { zoom_factor: 2 } }
    """
    stepwise, whole = (caffe.Net(text.parse(net, caffe_pb2.NetParameter()), caffe.TEST) for _ in range(2))
    whole.optimize()
    for shape in ((2, 8, 4, 6), (1, 8, 8, 12)):
        x = np.random.default_rng(5).normal(size=shape)
        for each in (stepwise, whole):
            each.blobs["x"].reshape(*shape)
            each.blobs["x"].data[...] = x
        np.testing.assert_allclose(whole.forward()["i"], stepwise.forward()["i"], rtol=1e-5, atol=1e-6)
    assert stepwise.blobs["i"].shape == (1, 32, 7, 11)


FOUR, MASK = (2, 3, 4, 5), (2, 3, 4, 4)


@pytest.mark.parametrize(
    ("kind", "options", "shapes", "says"),
    [
        ("Upsample", "upsample_param { scale: 1.5 }", (FOUR,), "scale is 1.5, expected a whole number"),
        ("Upsample", "upsample_param { scale_h: 2 }", (FOUR,), "scale_h is not an option of Upsample by copies"),
        ("Upsample", "upsample_param { mode: BILINEAR }", (FOUR,), "mode: BILINEAR is not implemented"),
        ("Upsample", "upsample_param { height: 2 }", (FOUR, FOUR), "height is not an option of Upsample by a mask"),
        ("Upsample", "", (FOUR, MASK), 'bottom "b1" has shape 2 3 4 4'),
        ("Upsample", "", ((2, 3),), "expected (N, C, H, W)"),
        ("UNPOOLING", "", (FOUR,), "kernel_size, or kernel_h and kernel_w, must be given"),
        ("UNPOOLING", "unpooling_param { kernel_h: 2 }", (FOUR,), "kernel_h is given alone"),
        ("UNPOOLING", "unpooling_param { kernel_size: 2 pad: 1 }", (FOUR,), "pad is not supported"),
        ("UNPOOLING", "unpooling_param { kernel_size: 2 unpool: AVE }", (FOUR, FOUR), "for unpool: MAX only"),
        ("Interp", "", (FOUR,), "needs zoom_factor, shrink_factor, or height and width"),
        ("Interp", "interp_param { zoom_factor: 2 pad_beg: 1 }", (FOUR,), "must be 0, or negative"),
        ("Interp", "interp_param { zoom_factor: 2 pad_beg: -4 }", (FOUR,), "cut off all of a bottom of 4 x 5"),
        ("Interp", "interp_param { zoom_factor: 0 }", (FOUR,), "zoom_factor is 0, expected 1 or more"),
        ("Reorg", "", (FOUR,), "stride must be given"),
        (
            "Reorg",
            "reorg_param { stride: 2 }",
            (FOUR,),
            "a bottom of 3 channels, expected a multiple of stride x stride, 4",
        ),
        ("Reorg", "reorg_param { stride: 2 }", ((1, 4, 3, 2),), "3 x 2 cannot be divided by stride 2"),
        ("RESIZE", "", (FOUR,), "the top would be 0 x 0"),
        ("RESIZE", "resize_param { resize_factor: 2 }", (FOUR,), "resize_factor belongs to another layer"),
        ("ImResize", "", (FOUR,), "the top would be 0 x 0"),
        ("ShuffleChannel", "shuffle_channel_param { group: 2 }", (FOUR,), "3 channels cannot be split into group: 2"),
        ("Flip", "", ((2, 3),), "expected (N, C, H, W)"),
        ("Reverse", "reverse_param { axis: 4 }", (FOUR,), "axis 4 out of range"),
        ("Transpose", "transpose_param { dim: [0, 1] }", (FOUR,), "does not name each of the 4 axes"),
        ("Gather", "", (FOUR, FOUR), "has 1 tops, expected one for each of the 2 bottoms"),
        ("ReLU6", "relu6_param { negative_slope: 0.1 }", (FOUR,), "negative_slope is not implemented"),
        ("NegReLU", "relu_param { negative_slope: 0.1 }", (FOUR,), "negative_slope is not implemented"),
        ("CReLU", "", ((3,),), "expected (N, C, ...)"),
        ("Insanity", "insanity_param { lb: 3 ub: 2 }", (FOUR,), "lb 3 and ub 2 must be positive"),
        ("ScaleFilter", "scale_filter_param { min_scale: 1 }", (FOUR,), "max_scale must be given"),
        ("ScaleFilter", "scale_filter_param { min_scale: 2 max_scale: 1 }", (FOUR,), "is above max_scale 1"),
        ("Axpy", "", ((2, 4), FOUR, FOUR), "expected one number for each of 2 x 3 channels"),
        ("Axpy", "", ((2, 3), FOUR, MASK), "expected equal shapes"),
        ("Maximum", "", ((2, 3),), "expected (N, C, H, W)"),
        ("GRN", "grn_param { bias: -1 }", (FOUR,), "bias is -1"),
        ("ChannelNorm", "", ((3,),), "expected (N, C, ...)"),
        ("BN", "", (FOUR,), "give one of them"),
        (
            "BN",
            "bn_param { bn_mode: LEARN frozen: true }",
            (FOUR,),
            "bn_mode belongs to SegNet's BN, frozen to PSPNet's",
        ),
        ("BN", "bn_param { eps: 0 }", (FOUR,), "eps is 0, expected a number above 0"),
        ("BN", "bn_param { var_eps: 1 }", (FOUR,), "var_eps belongs to ParseNet's BN"),
        ("BN", "param { } param { } param { lr_mult: 1 }", (FOUR,), "mean and variance are not trained"),
        ("BN", "bn_param { bn_mode: LEARN } param { } param { } param { }", (FOUR,), "SegNet's BN has two blobs"),
    ],
)
def test_bad_layers_are_refused(kind, options, shapes, says):
    assert_rejected(kind, options, *shapes, says=says)
