"""Layers of optical flow, compared with loops over cells, and the errors for invalid options."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.layers.build import apply, assert_rejected

RNG = np.random.default_rng(1)


@pytest.mark.parametrize("kind", ["MULTIPLY", "SUBTRACT"])
@pytest.mark.parametrize(("flat", "direction"), [(False, 0), (True, 0), (True, 1), (True, -1)])
def test_correlation_by_loops(kind, flat, direction):
    a, b = RNG.normal(size=(2, 1, 2, 6, 9))
    pad, k, far, s1, s2 = 3, 3, 3, 2, 2
    down, rows, radius = (0, 0, far // s2) if flat else (far, pad, far // s2)
    wide = [np.pad(x, ((0, 0), (0, 0), (rows, rows), (pad, pad))) for x in (a, b)]
    columns = {0: range(-radius, radius + 1), 1: range(radius + 1), -1: range(-radius - 1, 0)}[direction]
    moves = [(v, u) for v in ([0] if flat else range(-radius, radius + 1)) for u in columns]
    border = (k - 1) // 2
    sizes = [-(-(n - 2 * m - 2 * border) // s1) for n, m in zip(wide[0].shape[2:], (down, far), strict=True)]
    expected = np.zeros((1, len(moves), *sizes))
    more = np.pad(wide[1], ((0, 0), (0, 0), (0, 0), (s2, 0)))
    for c, (v, u) in enumerate(moves):
        for y, x in np.ndindex(*sizes):
            i, j = y * s1 + down, x * s1 + far
            one = wide[0][:, :, i : i + k, j : j + k]
            two = more[:, :, i + v * s2 : i + v * s2 + k, j + s2 + u * s2 : j + s2 + u * s2 + k]
            expected[0, c, y, x] = (one * two if kind == "MULTIPLY" else abs(one - two)).mean()
    options = f"pad: {pad} kernel_size: {k} max_displacement: {far} stride_1: {s1} stride_2: {s2}"
    options += f" correlation_type: {kind}" + (f" single_direction: {direction}" if direction else "")
    y = apply("Correlation1D" if flat else "Correlation", f"correlation_param {{ {options} }}", a, b)
    np.testing.assert_allclose(y, expected, rtol=1e-12)


def test_a_flow_moves_a_map():
    x = np.arange(12.0).reshape(1, 1, 3, 4)
    flow = np.zeros((1, 2, 3, 4))
    flow[0, 0], flow[0, 1, 0] = 1, 0.5
    y = apply("FlowWarp", "", x, flow)[0, 0]
    np.testing.assert_allclose(y, [[3, 4, 5, 0], [5, 6, 7, 0], [9, 10, 11, 0]])
    y = apply("FlowWarp", "flow_warp_param { fill_value: NOT_A_NUMBER }", x, flow)[0, 0]
    assert torch.isnan(y[:, 3]).all()
    assert not torch.isnan(y[:, :3]).any()


@pytest.mark.parametrize(("name", "sizes"), [("LINEAR", (3, 8)), ("CUBIC", (5, 9)), ("LINEAR", (12, 10))])
def test_resample_by_loops(name, sizes):
    x = RNG.normal(size=(6, 5))
    fy, fx = 6 / sizes[0], 5 / sizes[1]
    ay, ax = (1 / fy, 1 / fx) if max(fy, fx) > 1 else (1, 1)

    def weight(d):
        d = abs(d)
        if name == "LINEAR":
            return max(0, 1 - d)
        return 1.5 * d**3 - 2.5 * d**2 + 1 if d <= 1 else -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0

    expected = np.zeros(sizes)
    for i, j in np.ndindex(*sizes):
        row, column = i * fy + fx / 2 - 0.5, j * fx + fy / 2 - 0.5
        shares = np.array([[weight(ay * (row - h)) * weight(ax * (column - w)) for w in range(5)] for h in range(6)])
        expected[i, j] = (shares * x).sum() / shares.sum() if shares.sum() else 0
    y = apply("Resample", f"resample_param {{ height: {sizes[0]} width: {sizes[1]} type: {name} }}", x[None, None])
    np.testing.assert_allclose(y[0, 0], expected, rtol=1e-9, atol=1e-12)


def test_downsample_leaves_nan_out():
    x = np.array([[0.0, 1, 2, 3, np.nan], [0, 1, 2, 3, 4], [0, np.nan, 2, 3, 4]])
    y = apply("Downsample", "downsample_param { top_height: 2 top_width: 3 }", x[None, None])[0, 0]
    assert torch.isnan(y).tolist() == [[False, False, True], [False, False, False]]
    np.testing.assert_allclose(y[0, :2], [1 / 3, 2])
    y = apply("Downsample", "downsample_param { top_height: 3 top_width: 3 }", x[None, None])[0, 0]
    assert torch.isnan(y[0]).tolist() == [False, False, True]


def test_mean_accum_and_losses_by_hand():
    x = np.ones((1, 4, 1, 2))
    options = "operation: SUBTRACT value: [1, 2] input_scale: 4 mean_scale: 0.5 output_scale: 2"
    y = apply("Mean", f"mean_param {{ {options} }}", x)
    assert y[0, :, 0, 0].tolist() == [7, 6, 7, 6]
    y = apply("Accum", "", [[[[0.0, 2]]]], [[[[1.0, 2, 3]]]])
    assert y.tolist() == [[[[0, 1, 2]], [[1, 2, 3]]]]
    y = apply("Accum", "accum_param { have_reference: true }", [[[[0.0, 2]]]], np.zeros((1, 5, 1, 3)))
    assert y.tolist() == [[[[0, 1, 2]]]]
    a, b = [[[3.0, np.nan], [4, 1]]], [[[0.0, 0], [0, 0]]]
    roots = apply("LpqLoss", "lpq_loss_param { p: 2 q: 0.5 q_epsilon: 0 pq_episode_starts_at_iter: 0 }", a, b)
    assert roots.item() == pytest.approx(6)
    every = apply("LpqLoss", "lpq_loss_param { p: 1 q: 2 q_epsilon: 0 normalize_by_num_entries: true }", a, b)
    assert every.item() == pytest.approx((49 + 1) / 1.5)
    least = apply("LpqLoss", "lpq_loss_param { p: 2 q: 0.5 }", [[[0.0, 0]]]).item()
    assert least == pytest.approx(2 * 0.1)  # q_epsilon is 0.01 by default
    lengths = apply("L1Loss", "l1_loss_param { l2_per_location: true epsilon: 0 }", a, b)
    assert lengths.item() == pytest.approx(6)
    assert apply("L1Loss", "l1_loss_param { plateau: 2 }", a).item() == pytest.approx(7)


def test_errors_for_invalid_input():
    four = (1, 2, 4, 5)
    assert_rejected("Correlation", "correlation_param { kernel_size: 2 }", four, four, says="expected an odd number")
    options = "correlation_param { kernel_size: 1 max_displacement: 3 }"
    assert_rejected("Correlation", options, four, four, says="do not fit in 1 2 4 5")
    assert_rejected("Correlation1D", options, four, (1, 2, 4, 4), says="as the other one")
    assert_rejected("FlowWarp", "", (1, 3, 4, 5), (1, 3, 4, 5), says="expected 1 2 4 5 (40)")
    assert_rejected("Resample", "", four, says="give a height and a width")
    assert_rejected("Resample", "resample_param { type: AREA }", four, says="AREA is not known")
    assert_rejected("Downsample", "downsample_param { top_height: 1 top_width: 2 }", four, says="expected 2 or more")
    assert_rejected("Mean", "", four, says="needs either file or value")
    assert_rejected("Mean", "mean_param { value: [1, 2, 3] }", four, says="and the mean 3 1 1 (3)")
    assert_rejected("Accum", "", four, (2, 2, 4, 5), says="expected (1, C, H, W)")
    assert_rejected("Accum", "accum_param { have_reference: true }", four, says="2 or more with have_reference")
    assert_rejected("LpqLoss", "lpq_loss_param { p: [1, 2] q: 1 }", four, says="2 values of p and 1 of q")
    late = "lpq_loss_param { p: 1 q: 1 pq_episode_starts_at_iter: 5 }"
    assert_rejected("LpqLoss", late, four, says="pq_episode_starts_at_iter is [5], expected 0")
