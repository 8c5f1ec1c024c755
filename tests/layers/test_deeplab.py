"""DenseBlock, and DeepLab's layers that refine scores, compared with plain loops and values computed by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F

from caffe.layers.support.lattice import Lattice
from caffe.proto.caffe_pb2 import TEST
from tests.layers.build import apply, assert_rejected, build


def plain_lattice(points: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Compute the filter of Adams et al. 2010 point by point, with a dictionary of the lattice's vertices."""
    d = points.shape[1]
    held: dict[tuple[int, ...], float] = {}
    shares = []
    for point, value in zip(points.tolist(), values.tolist(), strict=True):
        scaled = [p * math.sqrt(2 / 3) * (d + 1) / math.sqrt((i + 1) * (i + 2)) for i, p in enumerate(point)]
        y = [sum(scaled[j:]) - j * (scaled[j - 1] if j else 0) for j in range(d + 1)]
        corner = [round(each / (d + 1)) * (d + 1) for each in y]
        excess = sum(corner) // (d + 1)
        rank = [
            sum((y[j] - corner[j], -j) > (y[i] - corner[i], -i) for j in range(d + 1)) + excess for i in range(d + 1)
        ]
        for i, each in enumerate(rank):
            step = int(each > d) - int(each < 0)
            corner[i], rank[i] = corner[i] - step * (d + 1), each - step * (d + 1)
        weights = [0.0] * (d + 2)
        for i in range(d + 1):
            weights[d - rank[i]] += (y[i] - corner[i]) / (d + 1)
            weights[d + 1 - rank[i]] -= (y[i] - corner[i]) / (d + 1)
        weights[0] += 1 + weights[d + 1]
        keys = [tuple(c + r - (d + 1) * (k > d - r) for c, k in zip(corner, rank, strict=True)) for r in range(d + 1)]
        shares.append(list(zip(keys, weights[: d + 1], strict=True)))
        for key, weight in shares[-1]:
            held[key] = held.get(key, 0) + weight * value
    for axis in range(d + 1):
        way = [(-d if i == axis else 1) for i in range(d + 1)]
        near = {k: [tuple(a + s * b for a, b in zip(k, way, strict=True)) for s in (1, -1)] for k in held}
        held = {k: v + sum(held.get(n, 0) for n in near[k]) / 2 for k, v in held.items()}
    return np.array([sum(held[k] * w for k, w in each) for each in shares]) / (1 + 2.0**-d)


def test_the_lattice_is_that_of_its_definition_and_close_to_a_gaussian():
    rng = np.random.default_rng(1)
    for d in (1, 2, 5):
        points, values = rng.normal(0, 1.5, (40, d)), rng.normal(0, 1, 40)
        found = Lattice(torch.tensor(points)).filter(torch.tensor(values)[:, None])[:, 0]
        np.testing.assert_allclose(found, plain_lattice(points, values), rtol=1e-9, atol=1e-12)
    grid = torch.tensor(list(itertools.product(range(20), range(20))), dtype=torch.float64) / 3
    one = torch.zeros(400, 1, dtype=torch.float64)
    one[210] = 1
    exact = torch.exp(-(grid - grid[210]).square().sum(1, keepdim=True) / 2)
    found = Lattice(grid).filter(one)
    assert torch.corrcoef(torch.cat([found, exact], 1).t())[0, 1] > 0.99


def test_the_random_field_smooths_noise_and_keeps_edges_of_the_image():
    labels = torch.zeros(1, 1, 12, 12)
    labels[..., 6:] = 1
    torch.manual_seed(3)
    scores = torch.cat([1 - labels, labels], 1).double() + 0.9 * torch.randn(1, 2, 12, 12, dtype=torch.float64)
    image = labels.repeat(1, 3, 1, 1).double() * 200
    options = "dense_crf_param { pos_w: 2 pos_xy_std: 2 bi_w: 4 bi_xy_std: 8 bi_rgb_std: 10 }"
    found = apply("DenseCRF", options, scores, torch.tensor([[12.0, 12]]), image)
    assert (scores.argmax(1, keepdim=True) != labels).sum() > 10
    assert (found.argmax(1, keepdim=True) == labels).all()
    np.testing.assert_allclose(found.sum(1), 1)
    part = apply("DenseCRF", "dense_crf_param { max_iter: 0 }", scores, torch.tensor([[5.0, 7]]))
    np.testing.assert_allclose(part[..., :5, :7], scores.softmax(1)[..., :5, :7])
    assert part.sum() == 35
    assert_rejected("DenseCRF", "dense_crf_param { pos_w: 1 }", (1, 2, 3, 3), (1, 2), says="1 pos_w and 0 pos_xy_std")


def test_domain_transform_against_loops():
    rng = np.random.default_rng(2)
    x, edges = rng.normal(0, 1, (1, 2, 3, 6)), rng.uniform(0, 1, (1, 1, 3, 6))
    options = "domain_transform_param { spatial_sigma: 5 range_sigma: 0.5 num_iter: 2 min_weight: 0.0625 }"
    found = apply("DomainTransform", options, x, edges, [[3.0, 5]])
    expected = x.copy()
    for k in (1, 2):
        sigma = 5 * math.sqrt(3) * 2 ** (2 - k) / math.sqrt(15)
        w = np.clip(np.exp(-math.sqrt(2) / sigma * (1 + edges[0, 0] * 10)), 0.0625, 1)
        for i in range(1, 5):
            expected[..., i] += w[:, i] * (expected[..., i - 1] - expected[..., i])
        for i in range(3, -1, -1):
            expected[..., i] += w[:, i + 1] * (expected[..., i + 1] - expected[..., i])
        for i in range(1, 3):
            expected[..., i, :5] += w[i, :5] * (expected[..., i - 1, :5] - expected[..., i, :5])
        for i in range(1, -1, -1):
            expected[..., i, :5] += w[i + 1, :5] * (expected[..., i + 1, :5] - expected[..., i, :5])
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert_rejected("DomainTransform", "", (1, 2, 3, 4), (1, 1, 3, 4), (1, 2), says="spatial_sigma must be given")


def test_adaptive_bias_by_hand():
    x = np.zeros((1, 3, 1, 4))
    x[0, 0, 0] = [3, 3, 3, 3]
    x[0, 1, 0] = [2, 1, 0, -1]
    x[0, 2, 0] = 9
    options = "num_iter: 1 bg_portion: 0 fg_portion: 0.5 suppress_others: true margin_others: 1"
    found = apply("AdaptiveBiasChannel", f"adaptive_bias_channel_param {{ {options} }}", x, [[[[0.0]], [[1]], [[-1]]]])
    # differences 1, 2, 3, 4: the third, 3, is added to class 1; the mean of the largest rises from 3 to 15 / 4
    np.testing.assert_allclose(found[0, :, 0], np.array([[3, 3, 3, 3], [5, 4, 3, 2], [1, 0, -1, -2]]) - 0.75)
    assert_rejected("AdaptiveBiasChannel", "", (1, 3, 2, 2), (1, 1, 1, 1), says="num_iter must be given")


def test_a_dense_block_is_its_layers_one_by_one():
    options = "denseblock_param { numTransition: 2 growthRate: 3 use_BC: true }"
    layer = build("DenseBlock", options, (2, 4, 5, 6), phase=TEST)
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    blobs = list(layer.tensors)
    assert [len(blobs), tuple(blobs[0].shape), tuple(blobs[11].shape)] == [21, (3, 12, 3, 3), (12, 7, 1, 1)]
    expected, factor = x, blobs[20]
    for i in range(2):
        scale, shift, mean, var = (blobs[2 * k + i].flatten() for k in (1, 2, 3, 4))
        y = F.batch_norm(expected, mean / factor, var / factor, scale, shift).relu()
        y = F.conv2d(y, blobs[10 + i])
        scale, shift, mean, var = (blobs[2 * k + i].flatten() for k in (6, 7, 8, 9))
        y = F.batch_norm(y, mean / factor, var / factor, scale, shift).relu()
        expected = torch.cat([expected, F.conv2d(y, blobs[i], padding=1)], 1)
    torch.testing.assert_close(layer(x), expected)
    train = build("DenseBlock", "denseblock_param { numTransition: 1 growthRate: 1 }", (2, 1, 3, 2))
    before = [blob.clone() for blob in train.tensors]
    small = x[:, :1, :3, :2]
    norm = (small - small.mean()) / (small.var() + 1e-5).sqrt() * before[1] + before[2]
    torch.testing.assert_close(train(small)[:, 1:], F.conv2d(norm.relu(), before[0], padding=1))
    torch.testing.assert_close(train.tensors[3].flatten(), 0.1 * before[3].flatten() + small.mean())
    torch.testing.assert_close(train.tensors[5], 0.1 * before[5] + 1)
    assert_rejected("DenseBlock", "denseblock_param { pad_h: 2 }", (1, 2, 3, 3), says="expected (1, 1, 1, 1, 3, 3)")
