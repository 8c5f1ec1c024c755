"""Pooling: windows, ties and padding as in Caffe, compared with plain loops."""

import itertools

import numpy as np
import pytest
import torch

from caffe.layers import pooling
from tests.layers.build import apply, assert_rejected, build

GEOMETRY = list(itertools.product((1, 2, 5, 8), (1, 2, 3, 5), (1, 2, 3, 5), (0, 1, 2, 3), ("CEIL", "FLOOR")))


def windows(size: int, kernel: int, stride: int, pad: int, ceil: bool, padded: bool) -> list[tuple[int, int]]:
    """Return (begin, end) of every window as in Caffe's loop over one axis; the end is inside the padded image."""
    steps = (size + 2 * pad - kernel) / stride
    count = int(np.ceil(steps) if ceil else np.floor(steps)) + 1
    if padded and (count - 1) * stride >= size + pad:
        count -= 1
    return [(i * stride - pad, min(i * stride - pad + kernel, size + pad)) for i in range(count)]


@pytest.mark.parametrize(("kernel", "pad"), sorted({(k, p) for _, k, _, p, _ in GEOMETRY if p < k}))
def test_windows_agree_with_loops(kernel, pad):
    rng = np.random.default_rng(1)
    tried = 0
    for size, k, stride, p, mode in GEOMETRY:
        rows = windows(size, kernel, stride, pad, mode == "CEIL", pad > 0)
        columns = windows(7, 3, 2, 0, mode == "CEIL", pad > 0)
        if (k, p) != (kernel, pad) or not rows:
            continue
        x = rng.permutation(size * 14).astype(float).reshape(1, 2, size, 7)
        options = (
            f"kernel_h: {kernel} kernel_w: 3 stride_h: {stride} stride_w: 2 pad_h: {pad} pad_w: 0 round_mode: {mode}"
        )
        top, mask = apply("Pooling", f"pooling_param {{ {options} }}", x, tops=2)
        assert torch.equal(top, apply("Pooling", f"pooling_param {{ {options} }}", x))
        mean = apply("Pooling", f"pooling_param {{ pool: AVE {options} }}", x)
        assert top.shape == mean.shape == (1, 2, len(rows), len(columns))
        for (i, (top_, bottom)), (j, (left, right)) in itertools.product(enumerate(rows), enumerate(columns)):
            cells = x[:, :, max(top_, 0) : bottom, max(left, 0) : right]
            cells = cells[:, :, : size - max(top_, 0), : 7 - max(left, 0)].reshape(1, 2, -1)
            if not cells.size:
                continue
            np.testing.assert_array_equal(top[:, :, i, j], cells.max(-1))
            taken = np.take_along_axis(x.reshape(1, 2, -1), mask[:, :, i, j, None].long().numpy(), -1)[..., 0]
            np.testing.assert_array_equal(taken, cells.max(-1))
            divisor = (bottom - top_) * (right - left)
            np.testing.assert_allclose(mean[:, :, i, j], cells.sum(-1) / divisor, rtol=1e-12)
        tried += 1
    assert tried


def test_rounds_up_and_drops_a_window_that_starts_in_the_padding():
    x = np.arange(6.0).reshape(1, 1, 1, 6)
    assert apply("Pooling", "pooling_param { kernel_size: 1 stride: 3 }", x).shape[3] == 3
    assert apply("Pooling", "pooling_param { kernel_h: 1 kernel_w: 2 stride: 2 pad_h: 0 pad_w: 1 }", x).shape[3] == 4
    assert apply("Pooling", "pooling_param { kernel_h: 1 kernel_w: 2 stride: 5 pad_h: 0 pad_w: 1 }", x).shape[3] == 2


def test_average_divides_by_the_cells_inside_the_padded_image():
    x = np.ones((1, 1, 3, 3))
    top = apply("Pooling", "pooling_param { pool: AVE kernel_size: 2 stride: 2 pad: 1 }", x)
    np.testing.assert_allclose(top[0, 0], [[1 / 4, 2 / 4], [2 / 4, 1]])
    wide = apply("Pooling", "pooling_param { pool: AVE kernel_size: 2 stride: 2 }", x)
    np.testing.assert_allclose(wide[0, 0], 1)


@pytest.mark.parametrize("channels", [1, 11])
def test_max_takes_the_first_index_of_a_tie(channels):
    x = torch.ones(1, channels, 3, 4, dtype=torch.float64, requires_grad=True)
    options = "pooling_param { kernel_h: 3 kernel_w: 2 stride: 2 }"
    _, mask = apply("Pooling", options, x, tops=2)
    np.testing.assert_array_equal(mask[0, 0], [[0, 2]])
    (grad,) = torch.autograd.grad(apply("Pooling", options, x).sum(), x)
    expected = np.zeros((3, 4))
    expected[0, [0, 2]] = 1
    np.testing.assert_array_equal(grad[0, 0], expected)
    whole = apply("Pooling", "pooling_param { global_pooling: true }", x)
    assert torch.autograd.grad(whole.sum(), x)[0][0, 0, 0, 0] == 1


def test_stochastic_picks_in_proportion_and_averages_in_test():
    x = torch.tensor([0.0, 1, 3, 4], dtype=torch.float64).reshape(1, 1, 2, 2).expand(4000, 1, 2, 2).contiguous()
    options = "pooling_param { pool: STOCHASTIC kernel_size: 2 }"
    torch.manual_seed(1)
    picked = apply("Pooling", options, x.requires_grad_())
    shares = [(picked == value).double().mean().item() for value in (0, 1, 3, 4)]
    np.testing.assert_allclose(shares, [0, 1 / 8, 3 / 8, 4 / 8], atol=0.03)
    (grad,) = torch.autograd.grad(picked.sum(), x)
    assert torch.equal(grad.flatten(1).sum(1), torch.ones(4000, dtype=torch.float64))
    assert torch.equal((grad * x).flatten(1).sum(1), picked.flatten())
    mean = build("Pooling", options, (4000, 1, 2, 2), phase=1)(x)
    np.testing.assert_allclose(mean.detach(), (1 + 9 + 16) / 8)


def test_stochastic_takes_nothing_from_margins_and_empty_windows():
    x = torch.zeros(2, 1, 3, 3, dtype=torch.float64)
    x[:, :, 2, 2] = 5
    options = "pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }"
    for phase in (0, 1):
        top = apply("Pooling", options, x, phase=phase)
        assert top[0, 0].tolist() == [[0, 0], [0, 5]]


def test_spatial_pyramid_covers_the_bottom_level_by_level():
    x = np.random.default_rng(1).permutation(2 * 3 * 7 * 6).astype(float).reshape(2, 3, 7, 6)
    top = apply("SPP", "spp_param { pyramid_height: 2 }", x)
    assert top.shape == (2, 15)
    np.testing.assert_array_equal(top[:, :3], x.max((2, 3)))
    halves = [
        x[:, :, rows, columns].max((2, 3)) for rows in (slice(3), slice(3, 7)) for columns in (slice(3), slice(3, 6))
    ]
    np.testing.assert_array_equal(top[:, 3:].reshape(2, 3, 4), np.stack(halves, 2))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("pool: MAX", "kernel_size is given 0 times"),
        ("kernel_size: 0", "kernel (0, 0) must be positive"),
        ("kernel_size: 2 stride: 0", "stride (0, 0) must be positive"),
        ("kernel_size: 2 pad: 2", "pad 2 must be less than kernel 2"),
        ("kernel_size: 2 kernel_h: 2 kernel_w: 3", "kernel_size and kernel_h are both given"),
        ("kernel_h: 2", "kernel_h without kernel_w"),
        ("kernel_size: 2 stride_h: 2", "stride_h without stride_w"),
        ("kernel_size: 2 pad_w: 1", "pad_w without pad_h"),
        ("kernel_size: 2 pad: 1 pad_h: 1 pad_w: 1", "pad and pad_h are both given"),
        ("kernel_size: 9", "does not fit"),
        ("global_pooling: true kernel_size: 2", "remove kernel_size"),
        ("global_pooling: true stride: 2", "remove stride and pad"),
        ("global_pooling: true pad: 1", "remove stride and pad"),
        ("pool: STOCHASTIC kernel_size: 3 pad: 1", "STOCHASTIC does not support padding"),
    ],
)
def test_bad_windows_are_rejected(options, says):
    assert_rejected("Pooling", f"pooling_param {{ {options} }}", (2, 3, 5, 7), says=says)


def test_bad_bottoms_and_tops_are_rejected():
    assert_rejected("Pooling", "pooling_param { kernel_size: 2 }", (2, 3, 5), says="expected (N, C, H, W)")
    assert_rejected("Pooling", "pooling_param { pool: AVE kernel_size: 2 }", (2, 3, 5, 7), says="MAX only", tops=2)
    assert_rejected("SPP", "", (2, 3, 5, 7), says="pyramid_height must be given")
    assert_rejected("SPP", "spp_param { pyramid_height: 4 }", (2, 3, 5, 7), says="too small for 4 x 4 cells")


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_a_large_bottom_that_learns_nothing_has_the_same_maxima(kernel, monkeypatch):
    monkeypatch.setattr(pooling, "_LARGE", 0)
    for stride, pad, height, width in itertools.product([1, 2, 3], [0, 1, 2], [4, 5, 7, 9], [5, 6, 8]):
        grid = pooling.Grid((kernel, kernel), (stride, stride), (pad, pad))
        if pad >= kernel or min(grid.windows((height, width))) < 1:
            continue
        x = torch.randn(2, 3, height, width).contiguous(memory_format=torch.channels_last)
        y = pooling.max_pool(x, grid)
        assert torch.equal(y, pooling.max_pool(x.clone().requires_grad_(), grid)), (stride, pad, height, width)
        assert torch.equal(y, pooling.max_pool(x.contiguous(), grid))


@pytest.mark.parametrize("pool", ["MAX", "AVE", "STOCHASTIC"])
@pytest.mark.parametrize("pad", [0, 1])
def test_a_stride_beyond_the_bottom_costs_no_memory(pool, pad):
    if pool == "STOCHASTIC" and pad:
        return
    x = torch.rand(2, 3, 8, 11, dtype=torch.float64)
    torch.manual_seed(1)
    far = apply("Pooling", f"pooling_param {{ pool: {pool} kernel_size: 3 pad: {pad} stride: 2147483647 }}", x)
    torch.manual_seed(1)
    near = apply("Pooling", f"pooling_param {{ pool: {pool} kernel_size: 3 pad: {pad} stride: 30 }}", x)
    assert far.shape == (2, 3, *([1, 1] if pad else [2, 2]))
    torch.testing.assert_close(far, near)


@pytest.mark.parametrize("pool", ["MAX", "AVE", "STOCHASTIC"])
def test_a_kernel_far_larger_than_the_bottom_costs_no_memory(pool):
    x = torch.rand(2, 3, 8, 11, dtype=torch.float64)
    torch.manual_seed(1)
    far = apply("Pooling", f"pooling_param {{ pool: {pool} kernel_size: 2147483647 stride: 2147483647 }}", x)
    torch.manual_seed(1)
    near = apply("Pooling", f"pooling_param {{ pool: {pool} kernel_size: 20 stride: 20 }}", x)
    torch.testing.assert_close(far, near)


def test_pooling_with_an_absurd_top_is_refused_and_takes_no_time():
    options = "pooling_param { pool: AVE kernel_size: 2147483647 pad: 2147483646 }"
    assert_rejected("Pooling", options, (2, 3, 8, 11), says="the top of shape 2 x 3 x 2147483654 x 2147483657 takes")


@pytest.mark.parametrize("mode", ["CEIL", "FLOOR"])
def test_a_mean_without_the_padding(mode):
    """With avg_include_pad: false of Intel's Caffe, the divisor is the number of cells inside the image."""
    x = np.random.default_rng(4).standard_normal((2, 3, 8, 7))
    options = f"pool: AVE kernel_size: 3 stride: 2 pad: 1 avg_include_pad: false round_mode: {mode}"
    got = apply("Pooling", f"pooling_param {{ {options} }}", x)
    spans = [windows(size, 3, 2, 1, mode == "CEIL", True) for size in (8, 7)]
    want = np.array(
        [[x[:, :, max(a, 0) : b, max(c, 0) : d].mean((2, 3)) for c, d in spans[1]] for a, b in spans[0]]
    ).transpose(2, 3, 0, 1)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    wide = "pooling_param { pool: AVE kernel_size: 2 stride: 4 pad: 1 avg_include_pad: false }"
    first = apply("Pooling", wide, x)[:, :, 0, 0]
    np.testing.assert_allclose(first, x[:, :, 0, 0], rtol=1e-6)
