"""Trained models from many sources give the same outputs as real Caffe."""

from __future__ import annotations

import json

import numpy as np
import pytest

import caffe
from tests.conftest import SHARED
from tests.replay import assert_close


def references() -> list:
    path = SHARED / "models" / "index.json"
    if not path.exists():
        return [pytest.param("", {}, marks=pytest.mark.skip(reason=f"reference files not found at {path}"))]
    return [pytest.param(name, info, id=name) for name, info in json.loads(path.read_text()).items() if "npz" in name]


SLOW = ("ov_person",)
"""Models whose run layer by layer takes long. Optimized, they are tested in every run."""


@pytest.mark.parametrize(
    ("name", "info", "optimize"),
    [
        pytest.param(
            *param.values,
            optimize,
            id=f"{param.id}-{'optimized' if optimize else 'layer_by_layer'}",
            marks=[*param.marks, *[pytest.mark.long] * (not optimize and str(param.id).startswith(SLOW))],
        )
        for param in references()
        for optimize in (False, True)
    ],
)
def test_model_gives_the_reference_outputs(name, info, optimize):
    folder = (SHARED / "models" / name).parent
    net = caffe.Net(folder / info["prototxt"], caffe.TEST, weights=folder / info["caffemodel"])
    if optimize:
        net.optimize()
    stored = np.load(SHARED / "models" / name)
    compared = 0
    for case in info["cases"]:
        for key in stored:
            if key.startswith(f"{case}|in|"):
                blob = net.blobs[key.split("|")[2]]
                blob.reshape(*stored[key].shape)
                blob.data[...] = stored[key]
        net.forward()
        for key in stored:
            if key.startswith(f"{case}|out|"):
                compare(
                    net.blobs[key.split("|")[2]].data, stored.get(key.replace("|out|", "|out_int|"), stored[key]), key
                )
                compared += 1
        for key in stored:
            blob = key.split("|")[-1]
            if key.startswith("priors|blob|") and not optimize:
                assert_close(net.blobs[blob].data, stored.get(f"priors_int|blob|{blob}", stored[key]), key, rtol=1e-6)
    assert compared


def compare(found: np.ndarray, stored: np.ndarray, key: str) -> None:
    """Assert that outputs are equal. Lists of detections are compared as sets, because nearly equal scores can swap."""
    if "detection_out" not in key:
        assert_close(found, stored, key, rtol=2e-5)
        return
    assert found.shape == stored.shape, key
    left = list(stored.reshape(-1, 7))
    for row in found.reshape(-1, 7):
        nearest = min(range(len(left)), key=lambda i: np.abs(left[i] - row).max())
        np.testing.assert_allclose(row, left.pop(nearest), rtol=2e-5, atol=2e-5, err_msg=key)
