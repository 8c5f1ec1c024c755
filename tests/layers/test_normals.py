"""L1Loss and the layers of xiaolonw's forks, compared with explicit values, and the errors for invalid bottoms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffe.errors import LayerError
from tests.layers.build import apply, assert_rejected, build

X = np.random.default_rng(1).normal(size=(2, 3, 2, 2))


def run(kind: str, *bottoms: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the loss and its gradient with respect to the first bottom."""
    x = torch.tensor(bottoms[0], dtype=torch.float64, requires_grad=True)
    rest = [torch.tensor(b, dtype=torch.float64) for b in bottoms[1:]]
    loss = build(kind, "", *(b.shape for b in bottoms))(x, *rest)
    loss.backward()
    return loss.item(), x.grad.numpy()


def test_multi_softmax_loss_counts_labels_from_one_and_has_its_own_scales():
    share = np.exp(X) / np.exp(X).sum(1, keepdims=True)
    np.testing.assert_allclose(apply("MULTI_SOFTMAX", "", X), share, rtol=1e-12)
    label = np.array([[[1.0, 2], [3, 1]], [[3, 3], [2, 1]]])[:, None]
    hit = label == np.arange(1, 4)[:, None, None]
    loss, gradient = run("MULTI_SOFTMAX_LOSS", X, label)
    assert loss == pytest.approx(-np.log(share[hit]).sum() / 2 / 336)
    np.testing.assert_allclose(gradient, (share - hit) / 2, rtol=1e-12)
    with pytest.raises(LayerError, match="holds the label -1"):
        run("MULTI_SOFTMAX_LOSS", X, label - 1)


def test_norm_has_no_gradient_where_the_vector_is_zero():
    x = torch.tensor([[[3.0, 0], [4, 0]]], dtype=torch.float64, requires_grad=True)
    y = apply("NORM", "", x)
    np.testing.assert_allclose(y.detach(), [[[0.6, 0], [0.8, 0]]], rtol=1e-6)
    y[:, 0].sum().backward()
    np.testing.assert_allclose(x.grad, [[[16 / 125, 0], [-12 / 125, 0]]], rtol=1e-6)


def test_angle_loss_leaves_out_cells_without_a_direction():
    x, t = np.zeros((2, 2, 1, 2)), np.zeros((2, 2, 1, 2))
    x[:, 0], t[:, 0], t[1] = 1, 0.5, 11
    loss, gradient = run("ANGLE_LOSS", x, t)
    assert loss == pytest.approx(2 * np.arccos(0.5) / 2)
    np.testing.assert_allclose(gradient[0, :, 0, 0], [-0.5 / (0.75**0.5 + 1e-6) / 2, 0], rtol=1e-12)
    assert not gradient[1].any()
    t[0, 0] = 1
    assert np.isfinite(run("ANGLE_LOSS", x, t)[1]).all()


def test_sigmoid_loss_takes_labels_that_are_one():
    label = np.array([1.0, 0, 2, -1] * 6).reshape(X.shape)
    share = 1 / (1 + np.exp(-X))
    loss, gradient = run("SIGMOID_LOSS", X, label)
    assert loss == pytest.approx(-np.where(label == 1, np.log(share), np.log(1 - share)).sum() / 2)
    np.testing.assert_allclose(gradient, (share - (label == 1)) / 2, rtol=1e-10)


def test_l1_loss_is_the_sum_of_differences_per_item():
    loss, gradient = run("L1Loss", X, np.zeros((2, 12)))
    assert loss == pytest.approx(np.abs(X).sum() / 2)
    np.testing.assert_array_equal(gradient, np.sign(X) / 2)


def test_label_dropout_picks_hard_negatives_and_others():
    label = np.zeros((1, 1, 10, 10))
    label[0, 0, 0, :8], label[0, 0, 1] = 1, -1  # 8 positive, 82 negative cells, 10 that are neither
    x = np.arange(1.0, 101).reshape(1, 1, 10, 10)
    options = "label_drop_param { drop_neg_ratio: 2 hard_ratio: 0.5 rand_ratio: 0.25 }"
    seen = set()
    for seed in range(30):
        torch.manual_seed(seed)
        y = apply("LABEL_DROPOUT", options, x, label).numpy()
        picked = y == x
        assert picked[label == 1].all()
        assert not picked[label == -1].any()
        assert (y[~picked] == label[~picked]).all()
        assert picked[label == 0].sum() == 8 + 4
        assert picked[x > 84].sum() >= 8
        seen.update(x[picked & (label == 0)])
    assert {value for value in seen if value <= 84}
    everything = apply("LABEL_DROPOUT", "label_drop_param { drop_neg_ratio: 20 }", x, label).numpy()
    np.testing.assert_array_equal(everything == x, label >= 0)


FOUR = (2, 3, 4, 5)


@pytest.mark.parametrize(
    ("kind", "options", "shapes", "says"),
    [
        ("MULTI_SOFTMAX_LOSS", "", (FOUR, (2, 3, 4, 5)), "has 120 labels, expected 40"),
        ("NORM", "", ((3,),), "expected (N, C, ...)"),
        ("ANGLE_LOSS", "", (FOUR, (2, 3, 4, 4)), "expected equal shapes"),
        ("SIGMOID_LOSS", "", (FOUR, (2, 3)), "expected equal counts"),
        ("LABEL_DROPOUT", "", (FOUR, (2, 3, 4, 4)), "expected equal shapes"),
        ("LABEL_DROPOUT", "label_drop_param { hard_ratio: 0.7 rand_ratio: 0.7 }", (FOUR, FOUR), "more than 1 together"),
        ("LABEL_DROPOUT", "label_drop_param { drop_neg_ratio: -1 }", (FOUR, FOUR), "drop_neg_ratio is -1"),
        ("L1Loss", "", (FOUR, (2, 3)), "expected equal counts per item"),
        ("L1Loss", "", (FOUR,), "has one bottom; expected two"),
    ],
)
def test_bad_bottoms_are_refused(kind, options, shapes, says):
    assert_rejected(kind, options, *shapes, says=says)
