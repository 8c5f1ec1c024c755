"""The flag -engine of the commands that run a net forward."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest

from caffe import TEST
from caffe.cli import main
from caffe.net import Net

DEPLOY = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 7 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


@pytest.fixture
def runs(noise, monkeypatch):
    """Make nets, weights, an image and windows; yield a list that gets an item for each run on OpenVINO."""
    pytest.importorskip("openvino", reason='the extra "openvino" is not installed')
    from caffe.net.engines.vino import run as open_vino_run

    (noise / "deploy.prototxt").write_text(DEPLOY)
    Net("deploy.prototxt", TEST).save("deploy.caffemodel")
    Net("net.prototxt", TEST).save("net.caffemodel")
    cv2.imwrite("image.png", np.random.default_rng(1).integers(0, 255, (9, 9, 3)).astype(np.uint8))
    (noise / "windows.csv").write_text("filename,ymin,xmin,ymax,xmax\nimage.png,0,0,8,7\n")
    seen = []
    run = open_vino_run._Model.__call__

    def note(self, given):
        seen.append(len(given))
        return run(self, given)

    monkeypatch.setattr(open_vino_run._Model, "__call__", note)
    return seen


IMAGES = ["-model_def", "deploy.prototxt", "-pretrained_model", "deploy.caffemodel"]
COMMANDS = {
    "test": ["test", "-model", "net.prototxt", "-weights", "net.caffemodel", "-iterations", "2"],
    "time": ["time", "-model", "net.prototxt", "-phase", "TEST", "-iterations", "1"],
    "classify": ["classify", "image.png", "out.npy", *IMAGES, "-images_dim", "9,9", "-raw_scale", "1"],
    "detect": ["detect", "windows.csv", "out.csv", *IMAGES, "-crop_mode", "list", "-context_pad", "0"],
    "extract_features": ["extract_features", "net.caffemodel", "net.prototxt", "ip", "out", "2", "npz"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_runs_its_net_on_open_vino(name, runs, noise):
    assert main(COMMANDS[name]) == 0
    assert not runs
    for made in noise.glob("out*"):
        made.unlink()
    assert main([*COMMANDS[name], "--engine", "openvino"]) == 0
    assert runs


def test_scores_are_those_of_torch(runs, capsys):
    def scores(*more: str) -> np.ndarray:
        assert main([*COMMANDS["classify"], *more]) == 0
        return np.load("out.npy")

    np.testing.assert_allclose(scores("-engine=openvino"), scores("-engine", "torch"), rtol=1e-4, atol=1e-6)
    assert runs


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["time", "-model", "net.prototxt", "-engine", "openvino"], "-engine openvino .*give -phase TEST"),
        ([*COMMANDS["time"], "-engine", "openvin"], 'unknown engine "openvin".*did you mean "openvino"'),
        ([*COMMANDS["time"], "-engine", "openvino", "-compile"], "cannot be combined with compile"),
    ],
)
def test_what_cannot_be_is_one_error(argv, error, noise, capsys):
    assert main(argv) == 1
    assert re.search(error, capsys.readouterr().err.partition("caffe: error: ")[2])
