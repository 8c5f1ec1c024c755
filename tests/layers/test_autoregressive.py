"""MaskedConvolution: the receptive field of a cell, explicit values, and a net whose outputs do not depend on later
pixels.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import caffe
from caffe.proto import caffe_pb2, text
from tests.layers.build import assert_rejected, build

WINDOW = "convolution_param { num_output: 1 kernel_size: 3 pad: 1 }"


def seen(options: str, shape: tuple[int, ...], place: tuple[int, ...]) -> np.ndarray:
    """Return the cells of the first item of the bottom on which the cell `place` of the top depends."""
    layer = build("MaskedConvolution", options, shape)
    with torch.no_grad():
        layer.weight.fill_(1)
    x = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    layer(x)[0][(0, *place)].backward()
    return (x.grad[0] != 0).numpy().astype(int)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ("mask: A", [[1, 1, 1], [1, 0, 0], [0, 0, 0]]),
        ("mask: B", [[1, 1, 1], [1, 1, 0], [0, 0, 0]]),
        ("mask: A rows: true", [[1, 1, 1], [0, 0, 0], [0, 0, 0]]),
        ("mask: B rows: true", [[1, 1, 1], [1, 1, 1], [0, 0, 0]]),
    ],
)
def test_a_cell_sees_what_came_before(mask, expected):
    options = f"{WINDOW} masked_convolution_param {{ {mask} }}"
    np.testing.assert_array_equal(seen(options, (1, 1, 3, 3), (0, 1, 1))[0], expected)


def test_colors_follow_one_another_within_a_cell():
    window = "convolution_param { num_output: 6 kernel_size: 1 }"
    for mask, expected in (
        ("A", ["000", "000", "100", "100", "110", "110"]),
        ("B", ["100"] * 2 + ["110"] * 2 + ["111"] * 2),
    ):
        options = f"{window} masked_convolution_param {{ mask: {mask} colors: 3 }}"
        got = ["".join(map(str, seen(options, (1, 3, 1, 1), (output, 0, 0)).ravel())) for output in range(6)]
        assert got == expected


NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 dim: 2 dim: 3 } } }
layer { name: "y" type: "MaskedConvolution" bottom: "x" top: "y" masked_convolution_param { mask: A }
  convolution_param { num_output: 1 kernel_size: 3 pad: 1 weight_filler { value: 1 } bias_filler { value: 10 } } }
"""


def test_values_written_out():
    net = caffe.Net(text.parse(NET, caffe_pb2.NetParameter()), caffe.TEST)
    y = net.forward(x=np.array([[[[1, 2, 3], [4, 5, 6]]]]))["y"]
    np.testing.assert_array_equal(y[0, 0], [[10, 11, 12], [13, 20, 20]])
    net.optimize()
    np.testing.assert_array_equal(net.forward()["y"][0, 0], y[0, 0])


def test_rows_and_raster_together_see_all_that_came_before_and_nothing_else():
    """A stack for the rows above, added to a stack along the row, has no blind spot (Gated PixelCNN)."""
    torch.manual_seed(1)
    x = torch.randn(1, 1, 6, 7, dtype=torch.float64, requires_grad=True)
    window = "convolution_param { num_output: 1 kernel_size: 3 pad: 1 }"
    line = "convolution_param { num_output: 1 kernel_h: 1 kernel_w: 3 pad_w: 1 }"
    v, h = x, x
    for mask in "ABBBBB":
        v = build("MaskedConvolution", f"{window} masked_convolution_param {{ mask: {mask} rows: true }}", v.shape)(v)[
            0
        ]
        h = build("MaskedConvolution", f"{line} masked_convolution_param {{ mask: {mask} }}", h.shape)(h)[0] + v
    h[0, 0, 3, 2].backward()
    before = np.arange(42).reshape(6, 7) < 3 * 7 + 2
    np.testing.assert_array_equal(x.grad[0, 0].numpy() != 0, before)


def test_masked_weights_have_no_gradient():
    layer = build("MaskedConvolution", f"{WINDOW} masked_convolution_param {{ mask: A }}", (2, 3, 5, 4))
    layer(torch.randn(2, 3, 5, 4, dtype=torch.float64))[0].sum().backward()
    assert (layer.weight.grad != 0).equal(layer.mask().expand_as(layer.weight))


@pytest.mark.parametrize(
    ("window", "mask", "says"),
    [
        ("kernel_size: 3 pad: 1", "", "masked_convolution_param { mask: A or B } must be given"),
        ("kernel_size: 3 pad: 1 stride: 2", "mask: A", "stride (2, 2) must be 1"),
        ("kernel_size: 2", "mask: B", "kernel_size (2, 2) must be odd on every axis"),
        ("kernel_size: 3", "mask: A", "pad (0, 0) shifts the mask off the pixel; expected pad (1, 1)"),
        ("kernel_size: 3 dilation: 2 pad: 1", "mask: A", "expected pad (2, 2)"),
        ("kernel_size: 1", "mask: A", "mask A over a kernel of (1, 1) sees no cell"),
        ("kernel_h: 1 kernel_w: 3 pad_w: 1", "mask: A rows: true", "mask A over a kernel of (1, 3) sees no cell"),
        ("kernel_size: 3 pad: 1", "mask: A colors: 0", "colors must be positive"),
        ("kernel_size: 3 pad: 1", "mask: A colors: 4", "6 channels of the bottom cannot be split into colors: 4"),
        ("kernel_size: 3 pad: 1", "mask: A colors: 3 rows: true", "colors has no effect"),
        ("kernel_size: 3 pad: 1 group: 2", "mask: A colors: 2", "colors 2 and group 2"),
    ],
)
def test_refuses(window, mask, says):
    options = f"convolution_param {{ num_output: 6 {window} }} masked_convolution_param {{ {mask} }}"
    assert_rejected("MaskedConvolution", options, (2, 6, 5, 4), says=says)


def test_refuses_bottoms_without_order():
    masked = "masked_convolution_param { mask: B rows: true }"
    window = "convolution_param { num_output: 1 kernel_size: 3 pad: 1 }"
    assert_rejected("MaskedConvolution", f"{window} {masked}", (2, 6, 5), says="rows: true needs two spatial axes")
    assert_rejected("MaskedConvolution", f"{window} {masked}", (2, 6), says="no spatial axes")
