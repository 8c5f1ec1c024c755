"""Recurrent layers of forks, CTC and losses for face recognition, compared with independent computations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from caffe.errors import LayerError
from tests.layers.build import apply, assert_rejected, build
from tests.layers.cases.ctc import LABELS, ROWS, STARTS


def told(path, blank):
    """Return the labels that an alignment stands for."""
    return tuple(label for label, _ in itertools.groupby(path) if label != blank)


def probability(x, labels, blank):
    """Return the probability of the labels for scores x (T, C), as a sum over all alignments."""
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    paths = (path for path in itertools.product(range(x.shape[1]), repeat=len(x)) if told(path, blank) == tuple(labels))
    return sum(np.prod([p[step, label] for step, label in enumerate(path)]) for path in paths)


X = np.random.default_rng(1).normal(size=(5, 3, 5))


def test_ctc_sums_over_all_alignments():
    expected = -np.log([probability(X[:, 0], [1, 2], 4), probability(X[:, 1], [3, 3], 4)]).mean()
    options = "alphabet_size: 5 time_step: 5 blank_label: 4"
    assert apply("CtcLoss", f"ctc_loss_param {{ {options} }}", X[:, :2], LABELS).item() == pytest.approx(expected)
    warp = apply("WarpCTCLoss", "ctc_loss_param { blank_index: 4 }", X[:, :2], LABELS)
    assert warp.item() == pytest.approx(expected)
    long = np.array([[1, 2, 1], [3, 3, 3]])  # the second one needs six steps
    expected = -np.log(probability(X[:, 0], [1, 2, 1], 4)) / 2
    options = "alphabet_size: 5 time_step: 4 blank_label: 4"
    short = apply("CtcLoss", f"ctc_loss_param {{ {options} }}", X[:, :2], long)
    assert short.item() == pytest.approx(-np.log(probability(X[:4, 0], [1, 2, 1], 4)) / 2)


def test_ctc_of_sequences_of_different_lengths():
    parts = [probability(X[:5, 0], [1, 3], 4), probability(X[:3, 1], [2], 4)]
    loss = apply("CTCLoss", "ctc_loss_param { blank_index: -1 }", X, STARTS, ROWS)
    assert loss.item() == pytest.approx(-np.log(parts).sum() / 3)
    parts = [probability(X[1:5, 0], [1, 3], 4), probability(X[1:3, 1], [2], 4)]
    loss = apply("CTCLoss", "ctc_loss_param { blank_index: 4 output_delay: 1 }", X, STARTS, ROWS)
    assert loss.item() == pytest.approx(-np.log(parts).sum() / 3)
    parts = [probability(X[:5, 0], [2, 4], 0), probability(X[:3, 1], [3], 0)]
    loss = apply("WarpCTCLoss", "ctc_loss_param { blank_index: 0 }", X, STARTS, ROWS)
    assert loss.item() == pytest.approx(-np.log(parts).sum() / 3)
    parts = [probability(X[:5, 0], [1, 2], 0), probability(X[:4, 1], [3, 3], 0)]
    loss = apply("WarpCTCLoss", "ctc_loss_param { blank_index: 0 }", X[:, :2], [5.0, 4], [2.0, 2], LABELS.T)
    assert loss.item() == pytest.approx(-np.log(parts).sum() / 2)
    many = np.full_like(ROWS, 1)
    with pytest.raises(LayerError, match="item 1 has 5 labels and 3 steps"):
        apply("CTCLoss", "ctc_loss_param { blank_index: -1 }", X, STARTS, many)


def test_decoders_merge_and_leave_blanks_out():
    best = np.array([[1, 1, 0, 1, 2], [2, 2, 2, 0, 0], [0, 0, 0, 0, 3]])
    x = np.eye(4)[best].transpose(1, 0, 2) * 0.5
    y = apply("CTCGreedyDecoder", "", x)
    assert y.tolist() == [[1, 1, 2, -1, -1], [2, -1, -1, -1, -1], [3, -1, -1, -1, -1]]
    every = apply("CTCGreedyDecoder", "ctc_decoder_param { ctc_merge_repeated: false }", x)
    assert every.tolist()[:2] == [[1, 1, 1, 2, -1], [2, 2, 2, -1, -1]]
    truth = np.array([[1, 2, -1], [2, 2, -1], [2, -1, -1], [-1, -1, -1], [-1, -1, -1]])
    y, score, accuracy = apply("CTCDecoder", "", x, STARTS, truth, tops=3)
    assert y[:, :, 0, 0].tolist() == [[1, 1, 2, -1, -1], [2, -1, -1, -1, -1], [-1] * 5]
    np.testing.assert_allclose(score.flatten(), [0.5**5, 0.5**3, 0.5])
    assert accuracy.item() == pytest.approx(1 - (1 / 3 + 1 / 2 + 0) / 3)
    right = apply("LabelsequenceAccuracy", "", x.transpose(1, 0, 2), [[1.0, 1, 2], [2, 2, 0], [0, 0, 3]])
    assert right.item() == pytest.approx(2 / 3)


def test_lstm_is_bvlcs_with_its_weights_in_another_order():
    mine = build("Lstm", "lstm_param { num_output: 3 batch_size: 2 }", (8, 5), (8,))
    other = build("LSTM", "recurrent_param { num_output: 3 }", (4, 2, 5), (4, 2))
    with torch.no_grad():
        for one, two in ((mine.weight_x, other.weight_x), (mine.weight_h, other.weight_h), (mine.bias, other.bias)):
            two.copy_(one)
    rng = np.random.default_rng(2)
    # the second run continues from the state of the first
    for cont in ([0, 0, 1, 1, 1, 0, 1, 1], [1, 1, 1, 1, 0, 1, 1, 1]):
        x, flags = torch.tensor(rng.normal(size=(8, 5))), torch.tensor(cont, dtype=torch.float64)
        expected = other(x.view(4, 2, 5), flags.view(4, 2))
        torch.testing.assert_close(mine(x, flags), expected.flatten(0, 1))


def test_steps_and_streams_of_ctpn_have_axes_of_their_own():
    ctpn = build("Lstm", "lstm_param { num_output: 3 }", (4, 2, 5))
    mine = build("Lstm", "lstm_param { num_output: 3 batch_size: 2 }", (8, 5))
    mine.load_state_dict(ctpn.state_dict())
    x = torch.randn(4, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(ctpn(x), mine(x.flatten(0, 1)).unflatten(0, (4, 2)))
    assert ctpn(x.expand(4, 2, 5)[:, :1]).shape == (4, 1, 3)  # images of other heights have other numbers of streams
    assert build("Lstm", "lstm_param { num_output: 3 batch_size: 1 }", (4, 2, 5)).weight_x.shape == (12, 10)


def test_lstm_cuts_its_gradient_at_each_step():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    layer = build("Lstm", "lstm_param { num_output: 2 clipping_threshold: 0.001 }", (4, 3))
    layer(x).sum().backward()
    assert layer.bias.grad.abs().max() <= 4 * 0.0010001
    assert layer.bias.grad.abs().max() > 0.003


def test_sequences_turned_round():
    x = np.arange(8.0).reshape(4, 2, 1)
    y = apply("ReverseTime", "reverse_time_param { copy_remaining: true }", x, [4.0, 2])
    assert y[:, :, 0].tolist() == [[6, 3], [4, 1], [2, 5], [0, 7]]
    y = apply("ReverseTime", "reverse_time_param { copy_remaining: false }", x, [4.0, 2])
    assert y[:, 1, 0].tolist() == [3, 1, 0, 0]
    y = apply("ContinuationIndicator", "continuation_indicator_param { time_step: 3 batch_size: 2 }")
    assert y.tolist() == [[0, 0], [1, 1], [1, 1]]


def test_centers_have_a_gradient_of_their_own():
    layer = build("CenterLoss", "center_loss_param { num_output: 3 }", (3, 2), (3,))
    with torch.no_grad():
        layer.centers.copy_(torch.tensor([[0.0, 0], [1, 1], [5, 5]]))
    x = torch.tensor([[1.0, 0], [2, 1], [1, 3]], dtype=torch.float64, requires_grad=True)
    loss = layer(x, torch.tensor([0.0, 1, 1]))
    assert loss.item() == pytest.approx((1 + 1 + 4) / 6)
    (10 * loss).backward()  # the loss weight does not affect the update of the centers
    np.testing.assert_allclose(x.grad, np.array([[1, 0], [1, 0], [0, 2]]) * 10 / 3)
    np.testing.assert_allclose(layer.centers.grad, [[-1 / 2, 0], [-1 / 3, -2 / 3], [0, 0]])


@pytest.mark.parametrize(("name", "times"), [("SINGLE", 1), ("DOUBLE", 2), ("TRIPLE", 3), ("QUADRUPLE", 4)])
def test_margins_by_angles(name, times):
    rng = np.random.default_rng(3)
    x, label, options = rng.normal(size=(6, 3)), np.arange(6) % 4, f"num_output: 4 type: {name} base: 3 lambda_min: 0.5"
    for kind, field in (("Margin", "margin"), ("LargeMargin", "largemargin")):
        layer = build(f"{kind}InnerProduct", f"{field}_inner_product_param {{ {options} }}", x.shape, (6,), tops=2)
        w = layer.weight.detach().numpy().copy()
        if kind == "Margin":
            w /= np.linalg.norm(w, axis=1, keepdims=True)
        y, share = layer(torch.tensor(x), torch.tensor(label, dtype=torch.float64))
        expected = x @ w.T
        assert share.item() == pytest.approx(3)
        for i, c in enumerate(label):
            length = np.linalg.norm(x[i]) * np.linalg.norm(w[c])
            angle = np.arccos(expected[i, c] / length)
            k = int(angle * times / np.pi)
            psi = (-1) ** k * np.cos(times * angle) - 2 * k
            expected[i, c] = (3 * expected[i, c] + length * psi) / 4
        np.testing.assert_allclose(y.detach(), expected, rtol=1e-6)
        np.testing.assert_allclose(layer.weight.detach(), w, rtol=1e-12)


def test_spheres_gradient_is_the_sources():
    layer = build(
        "MarginInnerProduct", "margin_inner_product_param { num_output: 1 type: DOUBLE base: 0 }", (1, 2), (1,)
    )
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0]]))
    x = torch.tensor([[3.0, 4]], dtype=torch.float64, requires_grad=True)
    layer(x, torch.zeros(1))[0].sum().backward()
    along = np.array([4 * 0.6, -(2 * 0.36 + 1) / 5])
    along /= np.linalg.norm(along)
    np.testing.assert_allclose(x.grad[0], along[0] * np.array([1, 0]) + along[1] * np.array([3, 4]))
    np.testing.assert_allclose(layer.weight.grad, [[3, 4]])


def test_triplets_by_hand():
    a, p, n = [[0.0, 0], [1, 1]], [[1.0, 0], [1, 1]], [[0.0, 1], [3, 1]]
    assert apply("TripletLoss", "triplet_loss_param { margin: 0.5 }", a, p, n).item() == pytest.approx(0.5 / 4)


def test_errors_for_invalid_input():
    shapes = (5, 2, 5), (2, 3)
    assert_rejected("CtcLoss", "ctc_loss_param { alphabet_size: 4 time_step: 5 }", *shapes, says="alphabet_size is 4")
    assert_rejected("CtcLoss", "ctc_loss_param { alphabet_size: 5 time_step: 6 }", *shapes, says="time_step is 6")
    assert_rejected("WarpCTCLoss", "", *shapes, says="blank_index must be given")
    assert_rejected(
        "CTCLoss", "ctc_loss_param { blank_index: 0 }", (5, 2, 5), (5, 2), (4, 2), says="expected labels (T, N)"
    )
    assert_rejected("CTCGreedyDecoder", "ctc_decoder_param { blank_index: 7 }", (5, 2, 5), says="blank_index is 7")
    assert_rejected("CTCDecoder", "", (5, 2, 5), (5, 2), tops=3, says="has three tops and no true labels")
    assert_rejected("LabelsequenceAccuracy", "", (5, 2, 5), (2, 3), says="expected (N, L) with N = 5")
    assert_rejected("Lstm", "lstm_param { num_output: 2 batch_size: 3 }", (4, 5), says="expected (T N, ...) with N = 3")
    assert_rejected("ContinuationIndicator", "", says="expected both above 0")
    assert_rejected("ReverseTime", "", (4, 2), (2,), says="copy_remaining must be given")
    assert_rejected("CenterLoss", "", (4, 2), (4,), says="num_output must be given")
    assert_rejected("MarginInnerProduct", "margin_inner_product_param { num_output: 2 }", (4, 2), (3,), says="3 labels")
    assert_rejected("LargeMarginInnerProduct", "", (4, 2), (4,), says="num_output must be given")
    assert_rejected(
        "TripletLoss", "triplet_loss_param { mu: 1 }", (4, 2), (4, 2), (4, 2), says="mu is an option of another fork"
    )
    with pytest.raises(LayerError, match="holds the label 9, expected 0 to 4"):
        apply("WarpCTCLoss", "ctc_loss_param { blank_index: 4 }", X[:, :2], LABELS + 8)
