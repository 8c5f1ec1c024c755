"""`caffe classification`, Caffe's example cpp_classification."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

import caffe
from caffe.cli import main
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2, text, weights

NET = """
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 4 dim: %d dim: 6 dim: 5 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
        inner_product_param { num_output: 7 weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


@pytest.mark.parametrize(
    ("depth", "channels", "code"),
    [
        (1, 1, None),
        (3, 1, cv2.COLOR_BGR2GRAY),
        (4, 1, cv2.COLOR_BGRA2GRAY),
        (1, 3, cv2.COLOR_GRAY2BGR),
        (3, 3, None),
        (4, 3, cv2.COLOR_BGRA2BGR),
    ],
)
def test_classification(depth, channels, code, tmp_path, capsys):
    rng = np.random.default_rng(8)
    spec = text.parse(NET % channels, caffe_pb2.NetParameter())
    net = caffe.Net(spec, caffe.TEST)
    text.write(tmp_path / "net.prototxt", spec)
    net.save(tmp_path / "net.caffemodel")
    mean = rng.uniform(80, 150, (channels, 3, 4)).astype(np.float32)
    weights.write_mean(tmp_path / "mean.binaryproto", mean)
    (tmp_path / "labels.txt").write_text("".join(f"class {number}\n" for number in range(7)))
    pixels = rng.integers(0, 256, (9, 8, depth) if depth > 1 else (9, 8), np.uint8)
    cv2.imwrite(str(tmp_path / "image.png"), pixels)
    files = [str(tmp_path / name) for name in ("net.prototxt", "net.caffemodel", "mean.binaryproto", "labels.txt")]
    image = str(tmp_path / "image.png")
    assert main(["classification", *files, image]) == 0
    said = capsys.readouterr().out.splitlines()
    same = cv2.resize(pixels if code is None else cv2.cvtColor(pixels, code), (5, 6)).reshape(6, 5, channels)
    net.blobs["data"].reshape(1, channels, 6, 5)
    net.reshape()
    scores = net.forward(data=(same - mean.mean((1, 2))).transpose(2, 0, 1)[None])["prob"][0]
    best = np.argsort(-scores)[:5]
    assert said == [f"---------- Prediction for {image} ----------", *(f'{scores[i]:.4f} - "class {i}"' for i in best)]
    (tmp_path / "labels.txt").write_text("one\n")
    assert main(["classification", *files, image]) == 1
    assert "contains 1 names, but the net has 7 classes" in capsys.readouterr().err
    assert main(["classification", *files[:3], str(tmp_path / "labels.txt"), str(tmp_path / "none.png")]) == 1
    assert "Unable to decode image" in capsys.readouterr().err


def test_the_device_is_that_of_the_flag(monkeypatch):
    seen = []

    def use(gpu, place, hint):
        seen.append((gpu, hint))
        raise CaffeError("no such device")

    monkeypatch.setattr("caffe.cli._device.use", use)
    assert main(["classification", *"abcde", "-gpu", "3"]) == 1
    assert seen == [("3", '"-gpu 3"')]
