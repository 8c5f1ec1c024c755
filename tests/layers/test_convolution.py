"""Convolution and its transpose, compared with explicit sums, and the errors for invalid options."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from caffe.errors import LayerError
from caffe.layers import convolution
from caffe.layers.support import geometry
from caffe.layers.support.geometry import Slide
from tests.layers.alone import alone
from tests.layers.build import apply, assert_rejected, build


def convolve(x: np.ndarray, w: np.ndarray, stride: int, pad: int, dilation: int, group: int) -> np.ndarray:
    """Compute every output as a sum over channels and kernel cells, for any number of axes."""
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
    if back.shape == x.shape:  # with a stride, some cells of x may not be read
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
def test_weights_are_channels_last_with_every_filler(filler):
    layer = alone("Convolution", [(2, 3, 9, 7)], f"convolution_param {{ num_output: 5 kernel_size: 3 {filler} }}")
    assert layer.weight.shape == (5, 3, 3, 3)
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    assert layer.weight.any() == bool(filler)


@pytest.mark.parametrize(
    ("kind", "sizes", "options", "like"),
    [
        ("Convolution", (8, 11), "kernel_size: 3 pad: 1 stride: 65536", "kernel_size: 3 pad: 1 stride: 20"),
        ("Convolution", (11,), "kernel_size: 1 stride: 2147483647", "kernel_size: 1 stride: 20"),
        ("Convolution", (2, 8, 4), "kernel_size: 2 stride: 65536", "kernel_size: 2 stride: 20"),
        ("Convolution", (3, 5), "kernel_size: 9 stride: 32767", "kernel_size: 9 stride: 20"),
        ("Deconvolution", (1, 1), "kernel_size: 3 pad: 1 stride: 65536", "kernel_size: 3 pad: 1 stride: 1"),
        ("Im2col", (8, 11), "kernel_size: 3 pad: 1 stride: 65536", "kernel_size: 3 pad: 1 stride: 20"),
    ],
)
def test_a_stride_beyond_the_bottom_gives_one_window_and_its_gradients(kind, sizes, options, like):
    def gradients(options: str) -> list[torch.Tensor]:
        torch.manual_seed(1)
        x = torch.rand(2, 3, *sizes, requires_grad=True)
        outputs = "" if kind == "Im2col" else "num_output: 2"
        layer = alone(kind, [tuple(x.shape)], f"convolution_param {{ {outputs} {options} }}")
        for blob in layer.tensors:
            torch.nn.init.normal_(blob)
        y = layer(x)
        y = y if kind == "Im2col" else y[0]
        y.square().sum().backward()
        return [y, x.grad, *(blob.grad for blob in layer.tensors)]

    for far, near in zip(gradients(options), gradients(like), strict=True):
        torch.testing.assert_close(far, near)


@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("kernel", [1, 3])
def test_strides_that_torch_is_slow_at_give_its_values(kernel, pad):
    torch.manual_seed(1)
    slide = Slide((kernel,), (geometry.FAR,), (pad,), (1,))
    x, weight, bias = (
        torch.rand(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 4, 600), (6, 2, kernel), (6,))
    )
    made, torch_s = convolution.convolve(x, weight, bias, slide, 2), F.conv1d(x, weight, bias, geometry.FAR, pad, 1, 2)
    torch.testing.assert_close(made, torch_s)
    top = torch.rand_like(made)
    inputs = [x, weight, bias]
    torch.testing.assert_close(torch.autograd.grad(made, inputs, top), torch.autograd.grad(torch_s, inputs, top))
    x, weight = torch.rand(2, 6, 3, dtype=torch.float64), torch.rand(6, 2, kernel, dtype=torch.float64)
    made = convolution.deconvolve(x, weight, None, slide, 2)
    torch.testing.assert_close(made, F.conv_transpose1d(x, weight, None, geometry.FAR, pad, 0, 2))


def test_deconvolution_over_four_axes_may_have_more_pad_than_kernel():
    x, weight = torch.rand(2, 3, 4, 5, 4, 3), torch.ones(3, 1, 1, 1, 1, 1)
    y = convolution.deconvolve(x, weight, None, Slide((1,) * 4, (1,) * 4, (1,) * 4, (1,) * 4), 1)
    torch.testing.assert_close(y, x.sum(1, keepdim=True)[..., 1:-1, 1:-1, 1:-1, 1:-1])


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution", "Im2col"])
@pytest.mark.parametrize("option", ["stride", "pad", "dilation"])
def test_options_beyond_31_bits_are_refused(kind, option):
    outputs = "" if kind == "Im2col" else "num_output: 2 "
    options = f"convolution_param {{ {outputs}kernel_size: 3 {option}: 4294967295 }}"
    assert_rejected(kind, options, (2, 3, 8, 11), says=f"{option} (4294967295,) is larger than 2147483647")
