"""Convolution and its transpose, against sums written out, and the options that cannot work."""

import itertools

import numpy as np
import pytest
import torch

from caffe.errors import LayerError
from tests.layers.alone import alone
from tests.layers.build import apply, assert_rejected, build


def convolve(x: np.ndarray, w: np.ndarray, stride: int, pad: int, dilation: int, group: int) -> np.ndarray:
    """Every output by its sum over channels and kernel cells; any number of axes."""
    extents = [dilation * (k - 1) + 1 for k in w.shape[2:]]
    sizes = [int((n + 2 * pad - e) / stride) + 1 for n, e in zip(x.shape[2:], extents, strict=True)]
    y = np.zeros((x.shape[0], w.shape[0], *sizes))
    for o in range(w.shape[0]):
        first = o // (w.shape[0] // group) * w.shape[1]
        for p in itertools.product(*map(range, sizes)):
            for k in itertools.product(*map(range, w.shape[2:])):
                at = [stride * i - pad + dilation * j for i, j in zip(p, k, strict=True)]
                if all(0 <= i < n for i, n in zip(at, x.shape[2:], strict=True)):
                    cells = x[(slice(None), slice(first, first + w.shape[1]), *at)]
                    y[(slice(None), o, *p)] += cells @ w[(o, slice(None), *k)]
    return y


@pytest.mark.parametrize(
    ("sizes", "kernel", "stride", "pad", "dilation"),
    [
        ((7,), 3, 2, 1, 2),
        ((7, 5), 3, 1, 0, 1),
        ((2, 5), 3, 2, 0, 1),
        ((4, 5, 3), 2, 2, 1, 1),
        ((4, 3, 5, 2), 2, 2, 1, 1),
        ((4, 3, 5, 3), 2, 1, 1, 2),
    ],
)
@pytest.mark.parametrize("group", [1, 2])
def test_convolution_is_the_sum_and_deconvolution_its_adjoint(sizes, kernel, stride, pad, dilation, group):
    options = f"kernel_size: {kernel} stride: {stride} pad: {pad} dilation: {dilation} group: {group} bias_term: false"
    layer = build("Convolution", f"convolution_param {{ num_output: 6 {options} }}", (2, 4, *sizes))
    x = torch.randn(2, 4, *sizes, dtype=torch.float64)
    (y,) = layer(x)
    expected = convolve(x.numpy(), layer.weight.detach().numpy(), stride, pad, dilation, group)
    np.testing.assert_allclose(y.detach(), expected, atol=1e-12)
    dy = torch.randn_like(y)
    transpose = build("Deconvolution", f"convolution_param {{ num_output: 4 {options} }}", tuple(y.shape))
    assert transpose.weight.shape == layer.weight.shape
    transpose.weight.data.copy_(layer.weight.data)
    (back,) = transpose(dy)
    if back.shape == x.shape:  # a stride may leave cells of x unread
        assert torch.sum(y * dy).item() == pytest.approx(torch.sum(x * back).item())
    else:
        read = tuple(slice(min(a, b)) for a, b in zip(x.shape, back.shape, strict=True))
        (dx,) = torch.autograd.grad((layer(x.requires_grad_())[0] * dy).sum(), x)
        torch.testing.assert_close(back[read], dx[read])


def test_blobs_have_the_shapes_of_weight_files():
    layer = build("Convolution", "convolution_param { num_output: 4 kernel_h: 3 kernel_w: 2 group: 2 }", (2, 6, 7, 5))
    assert [tuple(blob.shape) for blob in layer.tensors] == [(4, 3, 3, 2), (4,)]
    layer = build("Deconvolution", "convolution_param { num_output: 4 kernel_h: 3 kernel_w: 2 group: 2 }", (2, 6, 7, 5))
    assert [tuple(blob.shape) for blob in layer.tensors] == [(6, 2, 3, 2), (4,)]


def test_axis_makes_one_batch_of_the_axes_before_it():
    x = torch.randn(2, 5, 3, 7, 4, dtype=torch.float64)
    layer = build("Convolution", "convolution_param { num_output: 4 kernel_size: 3 axis: -3 }", tuple(x.shape))
    (y,) = layer(x)
    assert y.shape == (2, 5, 4, 5, 2)
    plain = build("Convolution", "convolution_param { num_output: 4 kernel_size: 3 }", (5, 3, 7, 4))
    torch.testing.assert_close(y[1], plain(x[1])[0])


def test_without_spatial_axes_it_is_an_inner_product():
    x = torch.randn(2, 3, dtype=torch.float64)
    layer = build("Convolution", "convolution_param { num_output: 4 kernel_size: 1 }", (2, 3))
    torch.testing.assert_close(layer(x)[0], x @ layer.weight.T + layer.bias)
    transpose = build("Deconvolution", "convolution_param { num_output: 4 kernel_size: 1 }", (2, 3))
    torch.testing.assert_close(transpose(x)[0], x @ transpose.weight + transpose.bias)


def test_columns_times_weights_are_the_convolution():
    options = "kernel_size: 3 kernel_size: 2 stride: 2 pad: 1 dilation: 1 dilation: 2"
    x = torch.randn(2, 3, 7, 5, dtype=torch.float64)
    layer = build("Convolution", f"convolution_param {{ num_output: 4 {options} bias_term: false }}", tuple(x.shape))
    columns = apply("Im2col", f"convolution_param {{ {options} }}", x)
    product = torch.einsum("ok,nkhw->nohw", layer.weight.flatten(1), columns)
    torch.testing.assert_close(product, layer(x)[0])


@pytest.mark.parametrize("type_name", ["Convolution", "Deconvolution"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("kernel_size: 3", "num_output must be given and positive"),
        ("num_output: 4", "kernel_size is given 0 times"),
        ("num_output: 4 kernel_size: 0", "kernel (0, 0) must be positive"),
        ("num_output: 4 kernel_size: 3 stride: 0", "stride (0, 0) must be positive"),
        ("num_output: 4 kernel_size: 3 dilation: 0", "dilation (0, 0) must be positive"),
        ("num_output: 4 kernel_size: 3 group: 2", "3 channels of the bottom cannot be split into group: 2"),
        ("num_output: 4 kernel_size: 3 group: 3", "4 num_output cannot be split into group: 3"),
        ("num_output: 4 kernel_size: 3 group: 0", "group must be positive"),
        ("num_output: 4 kernel_size: 3 kernel_h: 2 kernel_w: 2", "kernel_size and kernel_h are both given"),
        ("num_output: 4 kernel_size: 3 kernel_size: 3 kernel_size: 3", "kernel_size is given 3 times"),
        ("num_output: 4 kernel_h: 3", "kernel_h without kernel_w"),
        ("num_output: 4 kernel_w: 3", "kernel_w without kernel_h"),
        ("num_output: 4 kernel_size: 3 stride_h: 2", "stride_h without stride_w"),
        ("num_output: 4 kernel_size: 3 stride: 1 stride_h: 2 stride_w: 1", "stride and stride_h are both given"),
        ("num_output: 4 kernel_size: 3 axis: 5", "axis 5 out of range"),
        ('num_output: 4 kernel_size: 3 weight_filler { type: "magic" }', 'unknown filler type "magic"'),
    ],
)
def test_bad_options_are_rejected(type_name, options, says):
    assert_rejected(type_name, f"convolution_param {{ {options} }}", (2, 3, 5, 7), says=says)


def test_sizes_that_leave_no_top_are_rejected():
    assert_rejected(
        "Convolution", "convolution_param { num_output: 4 kernel_size: 9 }", (2, 3, 5, 7), says="spans (9, 9)"
    )
    assert_rejected("Im2col", "convolution_param { kernel_size: 9 }", (2, 3, 5, 7), says="spans (9, 9)")
    options = "convolution_param { num_output: 4 kernel_size: 1 pad: 3 }"
    assert_rejected("Deconvolution", options, (2, 3, 6, 7), says="pad (3, 3) removes all of the top")


def test_bottoms_that_do_not_belong_together_are_rejected():
    options = "convolution_param { num_output: 4 kernel_size: 3 }"
    assert_rejected("Convolution", options, (2, 3, 5, 7), (2, 3, 5, 6), says='bottom "b1" has shape 2 3 5 6', tops=2)
    assert_rejected("Convolution", options, (2, 3, 5, 7), (2, 3, 5, 7), says="2 bottoms need as many tops, got 1")
    options = "convolution_param { num_output: 4 kernel_h: 3 kernel_w: 3 }"
    assert_rejected("Convolution", options, (2, 3, 5), says="kernel_h is for 2 spatial axes")
    with pytest.raises(LayerError, match="does not fit"):
        build("Convolution", "convolution_param { num_output: 4 kernel_size: 3 }", (2, 3, 5, 7))(
            torch.zeros(2, 3, 2, 7, dtype=torch.float64)
        )


@pytest.mark.parametrize("filler", ["", 'weight_filler { type: "gaussian" std: 1 }'])
def test_weights_lie_with_the_channels_last_whatever_fills_them(filler):
    layer = alone("Convolution", [(2, 3, 9, 7)], f"convolution_param {{ num_output: 5 kernel_size: 3 {filler} }}")
    assert layer.weight.shape == (5, 3, 3, 3)
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    assert layer.weight.any() == bool(filler)
