"""The example of a small Faster R-CNN, whose data, targets and regions come from Python layers."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffe.proto import upgrade
from caffe.solver import get_solver
from tests.conftest import ROOT

EXAMPLE = ROOT / "examples" / "faster_rcnn_shapes"
DATA = Path("examples/faster_rcnn_shapes/data")


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Return a function that writes given numbers of pictures for training and testing to a new folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLE / "lib"))
    script = runpy.run_path(str(ROOT / "examples" / "ssd_shapes" / "make_data.py"))

    def run(train: int, test: int) -> None:
        monkeypatch.setitem(script["make"].__globals__, "COUNTS", {"train": train, "test": test})
        script["make"](DATA)

    yield run
    for name in [name for name in sys.modules if name.partition(".")[0] in ("rpn", "roi_data_layer")]:
        del sys.modules[name]


def trained(iterations: int):
    param = upgrade.read_solver(EXAMPLE / "solver.prototxt")
    param.train_net, param.max_iter = str(EXAMPLE / "train.prototxt"), iterations
    solver = get_solver(param)
    solver.solve()
    return solver


def test_a_few_steps_of_training_and_a_picture(make):
    make(3, 2)
    net = trained(2).net
    losses = [float(net.blobs[name].data) for name in ("rpn_loss_cls", "rpn_loss_bbox", "loss_cls", "loss_bbox")]
    assert np.isfinite(losses).all()
    assert losses[0] > 0
    evaluate = runpy.run_path(str(EXAMPLE / "evaluate.py"))["evaluate"]
    assert 0 <= evaluate(DATA, str(DATA / "faster_rcnn_iter_2.caffemodel"), "found.png") <= 1
    assert cv2.imread("found.png") is not None


def test_anchors_lie_around_their_cells_in_the_order_of_the_maps(make):
    from rpn.anchors import SIDES, anchors, as_map, by_cell

    boxes = anchors(2, 3, 4)
    assert boxes.shape == (2 * 3 * len(SIDES), 4)
    assert boxes[0].tolist() == [2 - 7, 2 - 7, 2 + 6, 2 + 6]
    assert boxes[len(SIDES)].tolist() == [6 - 7, 2 - 7, 6 + 6, 2 + 6]
    blob = np.arange(4.0 * len(SIDES) * 2 * 3, dtype=np.float32).reshape(1, -1, 2, 3)
    assert by_cell(blob, 4)[1].tolist() == blob[0, 4:8, 0, 0].tolist()
    np.testing.assert_array_equal(as_map(by_cell(blob, 4), 2, 3), blob)


@pytest.mark.long
def test_it_reaches_a_mean_average_precision_of_80_percent(make):
    make(400, 100)
    trained(2500)
    evaluate = runpy.run_path(str(EXAMPLE / "evaluate.py"))["evaluate"]
    assert evaluate(DATA, str(DATA / "faster_rcnn_iter_2500.caffemodel"), "found.png") >= 0.8
