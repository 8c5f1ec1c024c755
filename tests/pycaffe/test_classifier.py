"""Classifier, Detector and forward_all give the same results as the reference."""

from __future__ import annotations

import json

import numpy as np
import pytest

import caffe
from caffe.errors import CaffeError, MissingExtra, NetError
from tests.conftest import shared
from tests.replay import assert_close, write_files


@pytest.fixture
def case(tmp_path, monkeypatch):
    """The stored case. Its files are in the working directory."""
    models = np.load(shared("golden", "pycaffe", "models.npz"))
    write_files(models, tmp_path)
    (tmp_path / "deploy.prototxt").write_text(str(models["prototxt"]))
    monkeypatch.chdir(tmp_path)
    return models


def config(case):
    settings = json.loads(str(case["config"]))
    return {**settings, "mean": np.array(settings["mean"])}


def test_classifier(case):
    dims = case["classifier/image_dims"]
    classifier = caffe.Classifier("deploy.prototxt", "w.caffemodel", image_dims=dims, **config(case))
    images = [case["image0"], case["image1"]]
    assert_close(classifier.predict(images), case["classifier/oversample"], "oversample", rtol=1e-5)
    assert_close(classifier.predict(images, oversample=False), case["classifier/center"], "center", rtol=1e-5)
    assert isinstance(classifier, caffe.Net)


def test_classifier_without_image_dims_resizes_to_the_input(case):
    classifier = caffe.Classifier("deploy.prototxt", "w.caffemodel")
    assert tuple(classifier.image_dims) == classifier.blobs["data"].shape[2:]
    assert classifier.predict([case["image0"]], False).shape == (1, 5)


def test_forward_all(case):
    net = caffe.Net("deploy.prototxt", "w.caffemodel", caffe.TEST)
    rows = case["forward_all/data"]
    out = net.forward_all(blobs=["ip"], data=rows)
    assert set(out) == {"prob", "ip"}
    assert_close(out["prob"], case["forward_all/prob"], "prob", rtol=1e-5)
    assert_close(out["ip"], case["forward_all/ip"], "ip", rtol=1e-5)
    with pytest.raises(NetError, match="inputs"):
        net.forward_all(dta=rows)


def test_forward_backward_all(case):
    text = "force_backward: true\n" + str(case["prototxt"])
    with open("backward.prototxt", "w") as file:
        file.write(text)
    net = caffe.Net("backward.prototxt", caffe.TEST, weights="w.caffemodel")
    rows = case["forward_all/data"]
    diff = np.random.default_rng(1).normal(size=(len(rows), 5)).astype(np.float32)
    outs, diffs = net.forward_backward_all(blobs=["ip"], diffs=["conv"], data=rows, prob=diff)
    assert_close(outs["prob"], case["forward_all/prob"], "prob", rtol=1e-5)
    assert outs["ip"].shape == (23, 5)
    assert diffs["data"].shape == rows.shape
    assert diffs["conv"].shape[0] == 23
    net.blobs["data"].data[:3] = rows[20:]
    net.forward()
    net.blobs["prob"].diff[...] = 0
    net.blobs["prob"].diff[:3] = diff[20:]
    assert_close(net.backward()["data"][:3], diffs["data"][20:], "diff of the last, incomplete batch")


def test_detector(case):
    detector = caffe.Detector("deploy.prototxt", "w.caffemodel", **config(case))
    windows = case["detector/windows"]
    found = detector.detect_windows([("image.png", windows)])
    assert_close(np.array([entry["prediction"] for entry in found]), case["detector/pad_0"], "pad 0", rtol=1e-5)
    np.testing.assert_array_equal([entry["window"] for entry in found], windows)
    assert {entry["filename"] for entry in found} == {"image.png"}
    assert detector.detect_windows([]) == []
    with pytest.raises(MissingExtra, match="selective_search_ijcv_with_python"):
        detector.detect_selective_search(["image.png"])


def test_context_is_the_surroundings_and_beyond_the_image_the_mean(case):
    detector = caffe.Detector("deploy.prototxt", "w.caffemodel", context_pad=2, **config(case))
    image = np.full((40, 30, 3), 0.5, np.float32)
    inner = detector.crop(image, np.array([15, 12, 22, 17]))
    assert inner.shape == (12, 10, 3)
    assert (inner == 0.5).all()
    corner = detector.crop(image, np.array([0, 0, 7, 5]))
    mean = np.array([120, 110, 100]) / 255  # as image values, red first
    np.testing.assert_allclose(corner[0, 0], mean, rtol=1e-6)
    assert (corner[4:, 4:] == 0.5).all()
    assert len(detector.detect_windows([("image.png", case["detector/windows"])])) == 3
    with pytest.raises(CaffeError, match="outside the image"):
        detector.crop(image, np.array([100, 100, 110, 110]))
    with pytest.raises(CaffeError, match="leaves nothing"):
        detector.configure_crop(6)


@pytest.mark.parametrize("kind", ["Classifier", "Detector"])
@pytest.mark.parametrize(
    ("layer", "fact"),
    [
        (
            'type: "DummyData" top: "x" dummy_data_param { shape { dim: 1 dim: 3 dim: 4 dim: 4 } }',
            "its inputs are: none",
        ),
        ('type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 } }', r'its inputs are: "x" \(1, 3\)'),
    ],
)
def test_a_net_that_takes_no_images_is_refused(kind, layer, fact, tmp_path):
    net = tmp_path / "net.prototxt"
    net.write_text(f'layer {{ name: "x" {layer} }} layer {{ name: "y" type: "ReLU" bottom: "x" top: "y" }}')
    caffe.Net(str(net), caffe.TEST).save(str(tmp_path / "w.caffemodel"))
    with pytest.raises(NetError, match=f"net.prototxt: a {kind} needs a deploy net.*{fact}"):
        getattr(caffe, kind)(str(net), str(tmp_path / "w.caffemodel"))
