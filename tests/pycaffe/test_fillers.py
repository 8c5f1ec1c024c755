"""The values of fillers have the same statistics as in the reference."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from caffe import filler
from caffe.proto import caffe_pb2, text
from tests.conftest import reference, shared

STORED = reference("golden", "pycaffe", "fillers.json")
CASES = json.loads(STORED.read_text()) if STORED.exists() else {}


@pytest.mark.parametrize("name", CASES or [None])
def test_filler(name):
    shared("golden", "pycaffe", "fillers.json")
    case = CASES[name]
    torch.manual_seed(7)
    blob = torch.empty(case["shape"])
    filler.fill(blob, text.parse(case["filler"], caffe_pb2.FillerParameter()))
    values = blob.numpy().astype(np.float64)
    if "values" in case:
        np.testing.assert_allclose(values.ravel(), case["values"], rtol=1e-5, atol=1e-6)
        return
    if "sum_per_first_axis" in case:
        np.testing.assert_allclose(values.reshape(len(values), -1).sum(1), 1, rtol=1e-5)
    spread = case["std"] / np.sqrt(values.size)
    assert values.mean() == pytest.approx(case["mean"], abs=8 * spread)
    assert values.std() == pytest.approx(case["std"], rel=0.04)
    assert (values == 0).mean() == pytest.approx(case["zero_fraction"], abs=0.01)
    if "uniform" in name or "xavier" in name:
        low, high = case["min"], case["max"]
        slack = 2e-3 * (high - low)
        assert low - slack <= values.min() <= low + slack
        assert high - slack <= values.max() <= high + slack
