"""Inspection of a net: the result of each function, for nets whose weights are set by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

import caffe
from caffe import inside
from caffe.cli import _images, main
from caffe.errors import ArgumentError, NetError, UnknownName
from caffe.proto import caffe_pb2, text
from tests.conftest import shared

NET = """
name: "hand"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 10 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 2 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A net in which class 1 depends on channel 0 at (2, 3), and class 2 on minus channel 1 at (6, 7)."""
    folder = tmp_path_factory.mktemp("net")
    (folder / "net.prototxt").write_text(NET)
    net = caffe.Net(str(folder / "net.prototxt"), caffe.TEST)
    kernel, weights = net.params["conv"][0].data, net.params["ip"][0].data.reshape(4, 2, 8, 10)
    kernel[...], weights[...] = 0, 0
    kernel[0, 0, 1, 1] = kernel[1, 1, 1, 1] = 1
    weights[1, 0, 2, 3], weights[2, 1, 6, 7] = 2, -3
    net.save(str(folder / "net.caffemodel"))
    return folder


@pytest.fixture(scope="module")
def probe(folder):
    return inside.Probe(folder / "net.prototxt", folder / "net.caffemodel")


@pytest.fixture
def image():
    return np.random.default_rng(1).uniform(0.5, 1, (3, 8, 10)).astype(np.float32)


def test_a_probe_takes_the_scores_before_the_softmax(probe, image):
    assert (probe.input, probe.shape, probe.output, probe.classes) == ("data", (3, 8, 10), "ip", 4)
    assert (probe.below(), probe.last_map()) == ("conv", "conv")
    expected = [0, 2 * image[0, 2, 3], -3 * image[1, 6, 7], 0]
    np.testing.assert_allclose(probe.scores(np.stack([image] * 3)), [expected] * 3, rtol=1e-6)


@pytest.mark.parametrize(("target", "place", "size"), [(None, (2, 3), 2), (1, (2, 3), 2), (2, (6, 7), 3)])
def test_saliency_is_the_gradients_size(probe, image, target, place, size):
    expected = np.zeros((8, 10))
    expected[place] = size
    np.testing.assert_allclose(inside.saliency(probe, image, target), expected, rtol=1e-6)


def test_grad_cam_weighs_maps_by_their_mean_gradient(probe, image):
    np.testing.assert_allclose(inside.grad_cam(probe, image, 1), image[0] * 2 / 80, rtol=1e-5)
    np.testing.assert_array_equal(inside.grad_cam(probe, image, 2, "conv"), np.zeros((8, 10)))


def test_occlusion_tells_where_the_score_falls(probe, image):
    heat = inside.occlusion(probe, image, 1, size=3, stride=1, fill=0)
    drop = 2 * image[0, 2, 3]
    assert heat[2, 3] == pytest.approx(drop, rel=1e-5)
    assert heat[2, 6] == heat[7, 0] == 0
    assert 0 < heat[2, 4] < drop
    whole = inside.occlusion(probe, image, 1, size=8, stride=2, fill=0)
    assert whole.max() == pytest.approx(drop, rel=1e-5)


def test_the_image_that_a_class_likes_best(probe):
    found = inside.class_image(probe, 1, steps=40)
    assert found.shape == (3, 8, 10)
    assert np.unravel_index(np.abs(found).argmax(), found.shape) == (0, 2, 3)
    assert probe.scores(found)[0].argmax() == 1
    np.testing.assert_array_equal(found, inside.class_image(probe, 1, steps=40))


def test_neighbours_are_those_of_all_pairs():
    rng = np.random.default_rng(0)
    rows, query = rng.normal(size=(30, 7)), rng.normal(size=(4, 7))
    order, distances = inside.neighbours(rows, query, 5)
    whole = np.linalg.norm(rows[None] - query[:, None], axis=2)
    np.testing.assert_array_equal(order, np.argsort(whole, 1)[:, :5])
    np.testing.assert_allclose(distances, np.sort(whole, 1)[:, :5])


def test_pca_keeps_distances_of_a_plane_and_puts_the_widest_axis_first():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(40, 2)) * [5, 1]
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0][:2]
    points = inside.pca(plane @ turn + 3)
    one, other = (np.linalg.norm(each[None] - each[:, None], axis=2) for each in (plane, points))
    np.testing.assert_allclose(one, other, atol=1e-9)
    assert points[:, 0].std() > 3 * points[:, 1].std()
    assert inside.pca(np.ones((3, 1))).tolist() == [[0, 0]] * 3


def test_tsne_keeps_groups_together():
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(20, 10)) + 12 * rng.normal(size=10) for _ in range(3)])
    points = inside.tsne(rows, perplexity=8, steps=300)
    order, _ = inside.neighbours(points, points, 8)
    assert (order // 20 == np.arange(60)[:, None] // 20).all()
    assert np.isfinite(inside.tsne(np.zeros((12, 3)), steps=20)).all()


def test_filters_of_a_weight_file(folder):
    name, stack = inside.first_filters(folder / "net.caffemodel")
    assert (name, stack.shape) == ("conv", (2, 3, 3, 3))
    with pytest.raises(UnknownName, match='no layer "convv" with weights; did you mean "conv"'):
        inside.filters_of(folder / "net.caffemodel", "convv")
    with pytest.raises(NetError, match=r'layer "ip" have shape \(4, 160\); expected \(N, C, H, W\)'):
        inside.filters_of(folder / "net.caffemodel", "ip")


def test_what_makes_no_sense_is_an_error(probe, image):
    with pytest.raises(ArgumentError, match="class 4 does not exist; the net has 4, 0 to 3"):
        inside.saliency(probe, image, 4)
    with pytest.raises(ArgumentError, match=r"expected \(3, 8, 10\)"):
        inside.saliency(probe, image[:, :5])
    with pytest.raises(UnknownName, match='no blob "convv"; did you mean "conv"'):
        inside.grad_cam(probe, image, 1, "convv")
    with pytest.raises(ArgumentError, match=r'blob "ip" has shape \(1, 4\); expected maps'):
        inside.grad_cam(probe, image, 1, "ip")
    with pytest.raises(ArgumentError, match="size 9 and stride 1 do not suit"):
        inside.occlusion(probe, image, 1, 9, 1)
    with pytest.raises(ArgumentError, match=r"cannot find 4 neighbours"):
        inside.neighbours(np.zeros((3, 2)), np.zeros((1, 2)), 4)
    net = text.parse(NET.replace("dim: 8 dim: 10", ""), caffe_pb2.NetParameter(), "net").layer[0]
    with pytest.raises(NetError, match=r'its first input "data" has shape \(2, 3\); expected a deploy net of images'):
        inside.Probe(caffe_pb2.NetParameter(layer=[net]))


@pytest.mark.parametrize("channels", [1, 2, 3, 40])
def test_drawing_into_axes(channels):
    stack = np.random.default_rng(0).normal(size=(5, channels, 4, 6))
    axes = Figure().subplots(4)
    inside.draw_tiles(axes[0], stack, "tiles")
    inside.draw_heat(axes[1], stack[0], stack[0, 0])
    inside.draw_map(axes[2], stack[:, 0, 0, :2], ["a", "b", "a", "c", "b"], stack)
    inside.draw_neighbours(axes[3], stack[0], stack[1:], np.arange(4))
    assert [text.get_text() for text in axes[2].get_legend().get_texts()] == ["a", "b", "c"]


def test_the_commands_write_pictures(folder, tmp_path, monkeypatch, capsys):
    import cv2

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for number in range(10):
        cv2.imwrite(f"{number}.png", rng.integers(0, 255, (16, 20, 3), dtype=np.uint8))
    files = [str(folder / "net.prototxt"), str(folder / "net.caffemodel")]
    assert main(["filters", files[1], "-o", "filters.png"]) == 0
    assert main(["look", *files, "0.png", "-class", "1"]) == 0
    assert main(["look", *files, ".", "-ext", "png", "-only", "neighbours,map", "-o", "all"]) == 0
    one = {"0_activations", "0_saliency", "0_occlusion", "0_gradcam", "class_1"}
    assert {path.stem for path in (tmp_path / "look").iterdir()} == one
    assert {path.stem for path in (tmp_path / "all").iterdir()} == {"neighbours", "map_pca", "map_tsne"}
    assert 'wrote filters.png: 2 filters of layer "conv"' in capsys.readouterr().out
    assert main(["look", *files, "0.png", "-only", "salience"]) == 1
    assert '-only "salience"; did you mean "saliency"?' in capsys.readouterr().err
    assert main(["look", *files, "0.png", "-class", "9"]) == 1


def test_a_real_net_sees_digits():
    lenet = shared("models/lenet_mnist_2014_v1")
    probe = inside.Probe(lenet / "lenet.prototxt", lenet / "lenet_iter_10000.caffemodel")
    assert (probe.output, probe.below(), probe.classes) == ("ip2", "ip1", 10)
    made = inside.class_image(probe, 3)
    scores = probe.scores(made)[0]
    assert scores.argmax() == 3
    assert scores[3] > np.sort(scores)[-2] + 5


@pytest.mark.parametrize(
    ("shape", "swap", "order"),
    [((3, 9, 8), "auto", (2, 1, 0)), ((3, 9, 8), "1,2,0", (1, 2, 0)), ((5, 3, 8), "auto", range(5))],
)
def test_images_are_prepared_as_the_flags_say(shape, swap, order):
    flags = SimpleNamespace(mean_file="", raw_scale="255", input_scale="0.5", channel_swap=swap)
    mover = _images.transformer(SimpleNamespace(shape=shape, input="data"), flags)
    image = np.random.default_rng(3).random((*shape[1:], shape[0])).astype(np.float32)
    expected = image.transpose(2, 0, 1)[list(order)] * 255 * 0.5
    np.testing.assert_allclose(mover.preprocess("data", image), expected, rtol=1e-5)
