"""The example of a small SSD: its data are correct, and the net learns."""

from __future__ import annotations

import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffe.data import open_source
from caffe.data.databases.annotated import AnnotatedReader
from caffe.proto import upgrade
from caffe.solver import get_solver
from tests.conftest import ROOT

EXAMPLE = ROOT / "examples" / "ssd_shapes"


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return runpy.run_path(str(EXAMPLE / "make_data.py"))


def test_boxes_enclose_the_shapes(script):
    for seed in range(20):
        picture, boxes = script["draw"](np.random.default_rng(seed))
        assert picture.shape == (64, 64, 3)
        assert 1 <= len(boxes) <= 3
        for name, left, top, right, bottom in boxes:
            assert name in script["NAMES"][1:]
            middle = picture[(top + bottom) // 2, (left + right) // 2]
            same = (picture == middle).all(2)[top:bottom, left:right]
            assert same.mean() > 0.4
            assert same.any(0).mean() > 0.9
            assert same.any(1).mean() > 0.9


def test_the_databases_have_the_pictures_and_their_boxes(script, monkeypatch):
    monkeypatch.setitem(script["make"].__globals__, "COUNTS", {"train": 3, "test": 2})
    script["make"](Path("data"))
    with_boxes = [AnnotatedReader()(value) for _, value in open_source("LMDB", "data/train_lmdb").scan()]
    assert len(with_boxes) == 3
    for index, (image, rows) in enumerate(with_boxes):
        pixels = cv2.imread(f"data/images/train_{index:04d}.png")
        np.testing.assert_array_equal(image, pixels.transpose(2, 0, 1))
        assert set(rows[:, 0]) <= {1, 2, 3}
        assert (rows[:, 4:6] > rows[:, 2:4]).all()


@pytest.mark.long
def test_it_reaches_a_mean_average_precision_of_80_percent(script):
    script["make"](Path("examples/ssd_shapes/data"))
    param = upgrade.read_solver(EXAMPLE / "ssd_solver.prototxt")
    param.net, param.solver_mode = str(EXAMPLE / "ssd_train_test.prototxt"), param.CPU
    solver = get_solver(param)
    solver.solve()
    assert solver.test(0)["evaluate"][0] >= 0.8
    weights = "examples/ssd_shapes/data/ssd_iter_700.caffemodel"
    runpy.run_path(str(EXAMPLE / "draw.py"))["draw"](Path("examples/ssd_shapes/data"), weights, "found.png")
    assert cv2.imread("found.png") is not None
