"""Behaviours of Caffe's losses that differ from textbook definitions. Each test has the name of the behaviour."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from caffe.errors import CaffeError, LayerError
from caffe.net import Net
from caffe.proto import caffe_pb2, text, weights
from tests.conftest import shared
from tests.layers.alone import alone

FLT_MIN = 1.17549435e-38


def scores(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)


def loss_of(x, label, kind="SoftmaxWithLoss", options=""):
    return alone(kind, (x.shape, label.shape), options)(x, label)


def test_softmax_loss_divides_by_the_labels_that_count_unless_told_otherwise():
    x, label = scores(2, 5, 3), torch.tensor([[0.0, 1, 4], [2, 1, 1]])
    items = -torch.log_softmax(x, 1).gather(1, label.long().unsqueeze(1)).squeeze(1)[label != 1]
    total = items.sum().item()
    for options, expected in (
        ("ignore_label: 1", total / 3),
        ("ignore_label: 1 normalization: FULL", total / 6),
        ("ignore_label: 1 normalization: BATCH_SIZE", total / 2),
        ("ignore_label: 1 normalization: NONE", total),
        ("ignore_label: 1 normalize: false", total / 2),
        ("ignore_label: 1 normalize: true", total / 3),
    ):
        assert loss_of(x, label, options=f"loss_param {{ {options} }}").item() == pytest.approx(expected), options


def test_sigmoid_loss_divides_by_the_batch_unless_told_otherwise():
    x, target = scores(2, 3, 5), torch.ones(2, 3, 5, dtype=torch.float64)
    total = -torch.log(torch.sigmoid(x)).sum().item()
    kind = "SigmoidCrossEntropyLoss"
    assert loss_of(x, target, kind).item() == pytest.approx(total / 2)
    assert loss_of(x, target, kind, "loss_param { normalize: true }").item() == pytest.approx(total / 30)


@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "SigmoidCrossEntropyLoss"])
def test_explicit_normalization_beats_normalize(kind):
    x = scores(2, 3, 5)
    label = torch.ones(2, 5) if kind == "SoftmaxWithLoss" else torch.ones(2, 3, 5, dtype=torch.float64)
    both = loss_of(x, label, kind, "loss_param { normalize: false normalization: NONE }")
    assert both.item() == pytest.approx(loss_of(x, label, kind, "loss_param { normalization: NONE }").item())


def test_log_is_clamped_at_flt_min_and_the_gradient_is_not():
    x = torch.tensor([[0.0, 500.0]], requires_grad=True)
    loss = loss_of(x, torch.zeros(1))
    assert loss.item() == pytest.approx(87.3366, abs=1e-4)
    loss.backward()
    torch.testing.assert_close(x.grad, torch.tensor([[-1.0, 1.0]]))


@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "SigmoidCrossEntropyLoss", "InfogainLoss"])
def test_with_every_label_ignored_the_loss_is_zero(kind):
    x = scores(2, 3)
    label = torch.ones(2, 3) if kind == "SigmoidCrossEntropyLoss" else torch.ones(2)
    options = "loss_param { ignore_label: 1 normalization: VALID }"
    bottoms = [x, label] + [torch.ones(3, 3)] * (kind == "InfogainLoss")
    loss = alone(kind, [b.shape for b in bottoms], options)(*bottoms)
    loss.backward()
    assert loss.item() == 0
    assert (x.grad == 0).all()


def test_softmax_loss_with_two_tops_works():
    text_ = """
        force_backward: true
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 5 } } }
        layer { name: "l" type: "Input" top: "l" input_param { shape { dim: 2 dim: 5 } } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "x" bottom: "l" top: "loss" top: "prob" }"""
    net = Net(text.parse(text_, caffe_pb2.NetParameter()), caffe_pb2.TRAIN)
    net.blobs["x"].data[...] = scores(2, 3, 5).detach().numpy()
    tops = net.forward()
    expected = torch.softmax(scores(2, 3, 5), 1).detach().numpy()
    np.testing.assert_allclose(tops["prob"], expected, rtol=1e-5)
    net.blobs["prob"].diff[...] = 100  # has no part in the gradient
    net.backward()
    expected[:, 0] -= 1
    np.testing.assert_allclose(net.blobs["x"].diff, expected / 10, rtol=1e-5, atol=1e-7)


def test_ignored_target_is_compared_by_its_integer_part():
    x, target = scores(1, 3), torch.tensor([[0.0, 0.5, 1.0]], dtype=torch.float64)
    loss = loss_of(x, target, "SigmoidCrossEntropyLoss", "loss_param { ignore_label: 0 }")
    assert loss.item() == pytest.approx(-math.log(torch.sigmoid(x[0, 2]).item()))


def test_contrastive_gradient_has_1e_4_in_its_denominator():
    a = torch.tensor([[3e-4, 4e-4]], dtype=torch.float64, requires_grad=True)
    b, dissimilar = torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1)
    alone("ContrastiveLoss", ((1, 2), (1, 2), (1,)))(a, b, dissimilar).backward()
    torch.testing.assert_close(a.grad, -(1 - 5e-4) * a.detach() / (5e-4 + 1e-4))


def test_contrastive_gradient_of_equal_points_is_zero():
    a, b = torch.ones(1, 2, requires_grad=True), torch.ones(1, 2)
    loss = alone("ContrastiveLoss", ((1, 2), (1, 2), (1,)), "contrastive_loss_param { margin: 2 }")(
        a, b, torch.zeros(1)
    )
    loss.backward()
    assert loss.item() == 2
    assert (a.grad == 0).all()


def test_multinomial_gradient_divides_by_the_clamped_probability():
    p = torch.tensor([[0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    loss = loss_of(p, torch.zeros(1), "MultinomialLogisticLoss")
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(1e-20))
    torch.testing.assert_close(p.grad, torch.tensor([[-1e20, 0.0]], dtype=torch.float64))


def test_euclidean_loss_has_a_gradient_for_both_bottoms():
    a, b = scores(3, 5), torch.zeros(3, 5, dtype=torch.float64, requires_grad=True)
    loss_of(a, b, "EuclideanLoss").backward()
    torch.testing.assert_close(a.grad, a.detach() / 3)
    torch.testing.assert_close(b.grad, -a.detach() / 3)


@pytest.mark.parametrize(("norm", "expected", "slopes"), [("L1", 4, [0, 1, 1, -1]), ("L2", 6.5, [0, 4, 1, -3])])
def test_hinge_loss_wants_a_margin_of_one(norm, expected, slopes):
    x, label = torch.tensor([[3.0, 1], [-0.5, -0.5]], requires_grad=True), torch.tensor([0.0, 1])
    loss = loss_of(x, label, "HingeLoss", f"hinge_loss_param {{ norm: {norm} }}")
    loss.backward()
    assert 2 * loss.item() == expected
    assert (2 * x.grad).flatten().tolist() == slopes


@pytest.mark.parametrize("name", ["HingeLoss__l1", "HingeLoss__l2"])
def test_hinge_reference_diffs_are_of_overwritten_margins(name):
    """Caffe's HingeLoss stores its margins in the diff of the bottom between forward and backward.

    When the reference was recorded, a constant was written to the diffs of all inputs between the two. These two files
    therefore contain the gradient for that constant.
    """
    case = np.load(shared("golden", "layers", f"{name}.npz"))
    stored, label = case["input_diffs/x"], case["inputs/l"].astype(int)
    sign = np.ones_like(stored)
    sign[np.arange(len(label)), label] = -1
    overwritten = 1 if name.endswith("l1") else 2 * 771250.0
    np.testing.assert_allclose(stored, sign * overwritten / len(label), rtol=1e-6)


@pytest.mark.parametrize(
    "kind", ["SoftmaxWithLoss", "MultinomialLogisticLoss", "HingeLoss", "InfogainLoss", "Accuracy"]
)
@pytest.mark.parametrize("label", [-1, 3])
def test_label_out_of_range_is_an_error_that_names_it(kind, label):
    bottoms = [torch.rand(2, 3), torch.tensor([1.0, label])] + [torch.ones(3, 3)] * (kind == "InfogainLoss")
    layer = alone(kind, [b.shape for b in bottoms])
    with pytest.raises(
        LayerError, match=rf'"one" \({kind}\): bottom "b1" holds the label {label} \(element 1\).* 0 to 2'
    ):
        layer(*bottoms)


def test_ignored_label_may_lie_outside_the_classes():
    x, label = scores(2, 3), torch.tensor([255.0, 1])
    expected = -torch.log_softmax(x, 1)[1, 1].item()
    assert loss_of(x, label, options="loss_param { ignore_label: 255 }").item() == pytest.approx(expected)
    accuracy = alone("Accuracy", ((2, 3), (2,)), "accuracy_param { ignore_label: 255 }")
    assert accuracy(torch.eye(3)[:2], label) == 1


def test_accuracy_counts_a_tie_against_the_label():
    x, label = torch.tensor([[1.0, 1, 0], [2, 1, 0]]), torch.tensor([0.0, 0])
    assert alone("Accuracy", ((2, 3), (2,)))(x, label) == 0.5
    assert alone("Accuracy", ((2, 3), (2,)), "accuracy_param { top_k: 2 }")(x, label) == 1


def test_accuracy_of_a_class_that_does_not_occur_is_zero():
    layer = alone("Accuracy", ((2, 3), (2,)), tops=2)
    accuracy, classes = layer(torch.eye(3)[:2], torch.tensor([0.0, 2]))
    assert accuracy == 0.5
    assert classes.tolist() == [1, 0, 0]


def test_infogain_matrix_is_read_from_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matrix = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    weights.write_mean("H.binaryproto", matrix)
    x, label = scores(2, 3), torch.tensor([2.0, 0])
    by_file = loss_of(x, label, "InfogainLoss", 'infogain_loss_param { source: "H.binaryproto" }')
    by_bottom = alone("InfogainLoss", ((2, 3), (2,), (3, 3)))(x, label, torch.from_numpy(matrix[0, 0]).double())
    torch.testing.assert_close(by_file, by_bottom)


@pytest.mark.parametrize(
    ("kind", "shapes", "options", "message"),
    [
        ("SoftmaxWithLoss", ((2, 3, 5), (2,)), "", "2 labels, expected 10"),
        ("SoftmaxWithLoss", ((2, 3), (3,)), "", "same first axis"),
        ("SoftmaxWithLoss", ((2, 3), (2,)), "softmax_param { axis: 2 }", "axis 2 out of range"),
        ("HingeLoss", ((3, 5), (2,)), "", "same first axis"),
        ("EuclideanLoss", ((2, 3), (2, 5)), "", "equal counts"),
        ("SigmoidCrossEntropyLoss", ((2, 3), (2, 5)), "", "equal counts"),
        ("ContrastiveLoss", ((2, 3), (2, 5), (2,)), "", "expected equal shapes"),
        ("ContrastiveLoss", ((2, 3), (2, 3), (2, 2)), "", "expected 2 values"),
        ("ContrastiveLoss", ((2, 3, 5, 1), (2, 3, 5, 1), (2,)), "", "expected equal shapes"),
        ("InfogainLoss", ((2, 3), (2,)), "", "infogain_loss_param.source"),
        ("InfogainLoss", ((2, 3), (2,), (1, 1, 2, 3)), "", "6 elements, expected 9"),
        ("InfogainLoss", ((2, 3), (2,)), 'infogain_loss_param { source: "nowhere" }', "nowhere"),
        ("Accuracy", ((2, 3), (2,)), "accuracy_param { top_k: 4 }", "top_k 4 exceeds the number of classes, 3"),
        ("Accuracy", ((2, 3, 5), (2,)), "", "2 labels for 10 predictions"),
    ],
)
def test_bottoms_that_do_not_fit_are_errors(kind, shapes, options, message):
    with pytest.raises(CaffeError, match=message):
        alone(kind, shapes, options)


def test_accuracy_of_a_net_that_diverged_is_not_perfect():
    x, label = torch.full((3, 5), float("nan")), torch.zeros(3)
    assert loss_of(x, label, "Accuracy") == 0


@pytest.mark.parametrize("shape", [(300, 2), (2, 300, 3)])
def test_softmax_of_many_short_rows_is_torchs(shape):
    """For many short rows, the softmax of the transposed bottom is computed, which is faster.

    Layout, values and gradient are the same.
    """
    made = alone("Softmax", [shape], f"softmax_param {{ axis: {len(shape) - 1} }}")
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y, expected = made.forward(x), torch.softmax(x, -1)
    assert y.is_contiguous()
    torch.testing.assert_close(y, expected)
    way = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(*(torch.autograd.grad(top, x, way)[0] for top in (y, expected)))


def test_the_class_weights_of_segnet_do_not_change_the_divisor():
    x, label = scores(2, 3, 3), torch.tensor([[0.0, 1, 255], [2, 1, 1]])
    factor = torch.tensor([0.5, 2, 0.25])
    kept = label != 255
    index = label.long().clamp(max=2)
    items = -torch.log_softmax(x, 1).gather(1, index.unsqueeze(1)).squeeze(1)
    want = (items * factor[index])[kept].sum() / 5
    options = "ignore_label: 255 class_weighting: [0.5, 2, 0.25]"
    loss = loss_of(x, label, options=f"loss_param {{ weight_by_label_freqs: true {options} }}")
    assert loss.item() == pytest.approx(want.item())
    (mine,), (theirs,) = torch.autograd.grad(loss, x), torch.autograd.grad(want, x)
    torch.testing.assert_close(mine, theirs)
    plain = loss_of(x, label, options=f"loss_param {{ {options} }}")
    # class_weighting has no effect without weight_by_label_freqs
    assert plain.item() == pytest.approx(items[kept].mean().item())
    with pytest.raises(LayerError, match="class_weighting is given 2 times, expected once for each class, 3"):
        loss_of(x, label, options="loss_param { weight_by_label_freqs: true class_weighting: [1, 2] }")
