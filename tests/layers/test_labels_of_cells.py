"""Segmentation, pruned nets and small blocks of forks, with values computed by hand, and the errors for invalid
options.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffe.errors import LayerError
from caffe.proto.caffe_pb2 import TEST, TRAIN
from tests.layers.alone import alone
from tests.layers.build import apply, assert_rejected, build


def test_segmentation_accuracy_by_hand():
    x = np.zeros((1, 3, 1, 4))
    x[0, [0, 1, 1, 0], 0, range(4)] = 1
    label = [[[[0, 1, 0, 255.0]]]]
    options = "seg_accuracy_param { ignore_label: 255 reset: false }"
    layer = build("SegAccuracy", options, x.shape, (1, 1, 1, 4))
    y = layer(torch.tensor(x), torch.tensor(label))
    np.testing.assert_allclose(y.flatten(), [2 / 3, (1 / 2 + 1) / 2, (1 / 2 + 1 / 2 + 1) / 3])
    more = layer(torch.tensor(x), torch.tensor([[[[255, 255, 1, 0.0]]]]))
    assert more[0, 0, 0, 0].item() == pytest.approx(4 / 5)
    with pytest.raises(LayerError, match="holds the label 3, expected 0 to 2"):
        apply("SegAccuracy", "", x, [[[[0, 1, 0, 3.0]]]])


def test_labels_of_images_and_their_bias():
    y = apply(
        "UniqueLabel", "unique_label_param { max_labels: 4 ignore_label: 9 force_label: 0 }", [[[[3, 1, 9, 3.0]]]]
    )
    assert y.flatten().tolist() == [0, 1, 3, -1]
    with pytest.raises(LayerError, match="3 labels in an image, expected max_labels 2"):
        apply("UniqueLabel", "unique_label_param { max_labels: 2 }", [[[[3, 1, 9, 3.0]]]])
    y = apply(
        "BiasChannel",
        "bias_channel_param { bg_bias: 1 fg_bias: 2 }",
        np.zeros((1, 3, 1, 1)),
        [[[[0.0]], [[2]], [[-1]]]],
    )
    assert y.flatten().tolist() == [1, 0, 2]


def test_reductions_crops_and_peaks():
    x = np.arange(10.0).reshape(5, 2)
    y = apply("BatchReduction", "batch_reduction_param { level: [1, 2] reduction_param { operation: MEAN } }", x)
    assert y.tolist() == [[0, 1], [5, 6]]
    y = apply("MergeCrop", "", [[[1.0, 2]]], [[[0.0, 5, 6, 9, 9]]])
    assert y.tolist() == [[[1, 2], [5, 6]]]
    assert apply("Switch", "", [1.0, 2], [3.0, 4]).tolist() == [3, 4]
    x = np.array([[0.9, 0.1, 0], [0.1, 0.5, 0.4], [0.8, 0.1, 0.7]])
    y = apply("Nms", "nms_param { num_parts: 1 max_peaks: 3 threshold: 0.3 }", x[None, None])
    np.testing.assert_allclose(y[0, 0], [[4, 0, 0], [0, 0, 0.9], [1, 1, 0.5], [0, 2, 0.8]])
    x[1, 1] = 0.3
    first = apply("Nms", "nms_param { threshold: 0.3 }", x[None, None])
    assert first.shape == (1, 1, 101, 3)
    np.testing.assert_allclose(first[0, 0, :5], [[3, 0, 0], [0, 0, 0.9], [0, 2, 0.8], [2, 2, 0.7], [0, 0, 0]])
    a, b = [[1.0, 0], [1, 1]], [[1.0, 1], [0, 1]]
    assert apply("DiceCoefLoss", "", a, b).item() == pytest.approx(1 - 3 / 4)


def test_masks_take_weights_out_but_not_their_gradient():
    layer = build("CInnerProduct", "cinner_product_param { num_output: 1 bias_term: false }", (1, 2))
    assert [tuple(blob.shape) for blob in layer.tensors] == [(1, 2), (1, 2)]
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2.0, 3]]))
        layer.weight_mask.copy_(torch.tensor([[0.0, 0.5]]))
    y = layer(torch.tensor([[10.0, 100]], dtype=torch.float64))
    assert y.item() == 150
    y.backward()
    assert layer.weight.grad.tolist() == [[10, 100]]
    plain = build("Convolution", "convolution_param { num_output: 3 kernel_size: 2 }", (1, 2, 4, 4))
    mine = build("CConvolution", "convolution_param { num_output: 3 kernel_size: 2 }", (1, 2, 4, 4))
    with torch.no_grad():
        for name in ("weight", "bias"):
            getattr(mine, f"{name}_mask").bernoulli_(0.5)
            getattr(mine, name).copy_(getattr(plain, name))
            getattr(plain, name).mul_(getattr(mine, f"{name}_mask"))
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(mine(x)[0], plain(x)[0])


def test_small_blocks():
    torch.manual_seed(1)
    y = apply("SpatialDropout", "spatial_dropout_param { dropout_ratio: 0.25 }", np.ones((40, 50, 3)), phase=TRAIN)
    assert set(np.unique(y).round(6)) == {0, round(4 / 3, 6)}
    assert (y == y[:, :, :1]).all()
    assert 0.2 < (y == 0).double().mean() < 0.3
    y = apply("Noise", "noise_param { bias: 2 gaussian_std: 0.5 }", np.zeros((50, 50)), phase=TRAIN)
    assert y.mean().item() == pytest.approx(2, abs=0.05)
    assert y.std().item() == pytest.approx(0.5, abs=0.05)
    assert apply("Noise", "noise_param { gaussian_std: 0.5 }", [1.0, 2], phase=TEST).tolist() == [1, 2]
    layer = alone("EltwiseAffine", [(1, 2)])
    np.testing.assert_allclose(layer(torch.ones(1, 2)).detach(), [[1.0002] * 2], rtol=1e-6)
    layer = build("APL", "apl_param { sums: 2 }", (1, 1))
    with torch.no_grad():
        layer.slope.copy_(torch.tensor([0.5, -1]).view(1, 1, 2, 1))
        layer.offset.copy_(torch.tensor([0.0, 1]).view(1, 1, 2, 1))
    assert layer(torch.tensor([[-2.0]])).item() == pytest.approx(0.5 * 2 - 3)
    assert layer(torch.tensor([[0.5]])).item() == pytest.approx(0.5 - 0.5)


def test_cells_of_each_label_are_counted():
    found = np.float32([[0, 1, 2.7], [2, 1, 1]]).reshape(2, 1, 1, 3)
    truth = np.float32([[0, 2, 2], [9, 1, 0]]).reshape(2, 1, 1, 3)
    y = apply("ParseEvaluate", "parse_evaluate_param { num_labels: 3 ignore_label: 9 }", found, truth)
    np.testing.assert_array_equal(y, np.float32([[1, 2, 1], [1, 1, 3], [1, 2, 1]]).reshape(1, 3, 1, 3))
    with pytest.raises(LayerError, match="holds the label 9, expected 0 to 2"):
        apply("ParseEvaluate", "parse_evaluate_param { num_labels: 3 }", found, truth)


def test_errors_for_invalid_input():
    assert_rejected("ParseEvaluate", "", (1, 1, 2, 2), (1, 1, 2, 2), says="needs num_labels")
    options = "parse_evaluate_param { num_labels: 2 }"
    assert_rejected("ParseEvaluate", options, (1, 2, 2, 2), (1, 1, 2, 2), says="expected (N, 1, H, W)")
    assert_rejected("ParseEvaluate", options, (1, 1, 2, 2), (1, 1, 2, 3), says="expected 1 1 2 2 (4)")
    assert_rejected("SegAccuracy", "", (1, 3, 2, 2), (1, 1, 2, 3), says="expected 1 1 2 2 (4)")
    assert_rejected("UniqueLabel", "", (1, 1, 2, 2), says="max_labels is 0")
    assert_rejected("BiasChannel", "", (1, 3, 2, 2), (2, 1, 1, 1), says="expected (1, L, 1, 1)")
    assert_rejected("BatchReduction", "batch_reduction_param { level: 3 }", (5, 2), says="the levels take 9 rows")
    assert_rejected("MergeCrop", "", (1, 2, 3, 3), (1, 2, 2, 3), says="the second as large or larger")
    assert_rejected("Switch", "", (1, 2), (1, 3), says="expected 1 2 (2)")
    assert apply("Nms", "", np.zeros((1, 16, 2, 2), np.float32)).shape == (1, 15, 21, 3)
    assert_rejected("Nms", "nms_param { num_parts: 4 max_peaks: 2 }", (1, 3, 2, 2), says="C at least 4")
    assert_rejected(
        "Nms", "nms_param { num_parts: 1 num_peak: 2 }", (1, 1, 2, 2), says="num_peak belongs to another version"
    )
    assert_rejected("DiceCoefLoss", "", (1, 3), (2, 3), says="expected equal counts per item")
    options = "convolution_param { num_output: 2 kernel_size: 1 } cconvolution_param { iter_stop: 5 }"
    assert_rejected("CConvolution", options, (1, 2, 3, 3), says="prunes while training")
    options = "inner_product_param { num_output: 2 } cinner_product_param { num_output: 2 }"
    assert_rejected("CInnerProduct", options, (1, 2), says="keep one")
    assert_rejected("SpatialDropout", "spatial_dropout_param { dropout_ratio: 1 }", (1, 2), says="dropout_ratio is 1")
    assert_rejected("EltwiseAffine", "", (2,), says="expected (N, C, ...)")
    assert_rejected("Noise", "", (2,), says="gaussian_std must be given")
    assert_rejected("APL", "", (1, 2), says="sums must be given")
