"""Real trained models of many origins give the outputs that real Caffe gave."""

from __future__ import annotations

import json

import numpy as np
import pytest

import caffe
from caffe.errors import NetError
from tests.conftest import SHARED
from tests.replay import assert_close

OTHER_FORKS = ("norm_param", "prior_box_param", "detection_output_param")
"""Options of layers that BVLC Caffe does not have, and this package not yet: nets with such a layer are refused."""


def references() -> list:
    path = SHARED / "models" / "index.json"
    if not path.exists():
        return [pytest.param("", {}, marks=pytest.mark.skip(reason=f"reference files not found at {path}"))]
    return [pytest.param(name, info, id=name) for name, info in json.loads(path.read_text()).items() if "npz" in name]


@pytest.mark.parametrize(("name", "info"), references())
def test_model_gives_the_reference_outputs(name, info):
    folder = (SHARED / "models" / name).parent
    prototxt = folder / info["prototxt"]
    if any(field in prototxt.read_text() for field in OTHER_FORKS):
        with pytest.raises(NetError, match=r"layer type \"\w+\" comes from a fork of Caffe"):
            caffe.Net(prototxt, caffe.TEST)
        return
    net = caffe.Net(prototxt, caffe.TEST, weights=folder / info["caffemodel"])
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
                assert_close(net.blobs[key.split("|")[2]].data, stored[key], key, rtol=2e-5)
                compared += 1
    assert compared
