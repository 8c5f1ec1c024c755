"""The functions that replace py-faster-rcnn's compiled modules, and the choice between them and compiled modules."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest

from caffe.errors import ArgumentError

DETS = np.array(
    [
        [0, 0, 9, 9, 0.5],
        [0, 0, 9, 4, 0.9],  # half of the first
        [0, 0, 9, 9, 0.4],  # the same as the first
        [20, 20, 29, 29, 0.7],
    ],
    dtype=np.float32,
)


@pytest.fixture
def lib(tmp_path, monkeypatch):
    """A folder lib without compiled modules."""
    for name in ("nms", "utils"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("nms", "utils"):
            del sys.modules[name]


def function(module, name):
    return getattr(importlib.import_module(module), name)


def test_the_kernel_for_cpus_drops_a_box_at_the_threshold_and_that_for_gpus_above_it(lib):
    cpu, gpu = function("nms.cpu_nms", "cpu_nms"), function("nms.gpu_nms", "gpu_nms")
    assert cpu(DETS, 0.5) == function("utils.cython_nms", "nms")(DETS, 0.5) == [1, 3]
    assert gpu(DETS, 0.5, device_id=1) == [1, 3, 0]
    assert cpu(DETS, 0.7) == [1, 3, 0]
    assert gpu(DETS[:0], 0.5) == []


def test_overlaps_are_those_of_boxes_with_inclusive_corners(lib):
    boxes = DETS.astype(float)
    boxes.flags.writeable = False
    found = function("utils.cython_bbox", "bbox_overlaps")(boxes, boxes[1:, :4])
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [[0.5, 1, 0], [1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]])


def test_a_compiled_module_goes_first_and_other_modules_are_missing_as_before(lib):
    (lib / "nms" / "gpu_nms.py").write_text("gpu_nms = None")
    assert function("nms.gpu_nms", "gpu_nms") is None
    with pytest.raises(ModuleNotFoundError, match=r"nms\.mask_nms"):
        importlib.import_module("nms.mask_nms")


def test_boxes_of_another_shape_are_an_error(lib):
    with pytest.raises(ArgumentError, match=r"shape \(4, 4\), expected rows of at least 5"):
        function("nms.cpu_nms", "cpu_nms")(DETS[:, :4], 0.5)
