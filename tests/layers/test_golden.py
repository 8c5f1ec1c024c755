"""Every layer computes what the reference computed: tops, loss, gradients and running statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.conftest import shared_cases
from tests.layers.golden import LayerCase


@pytest.mark.parametrize("path", shared_cases("golden/layers"))
def test_layer_computes_what_the_reference_computed(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    case = LayerCase(path, tmp_path)
    check_shapes(case)
    if "compare" in case.data:
        check_dropout(case)
    else:
        assert case.check() > 0
    case.net.close()


def check_shapes(case: LayerCase) -> None:
    """Assert that the inferred shapes equal those of a run by torch alone."""
    for step in case.net.steps:
        if step.bottoms and step.layer.type != "Python":  # user's code states its shapes
            bottoms = [torch.empty(blob.shape, device="meta") for blob in step.bottoms]
            quick, whole = step.layer.infer(*bottoms), step.layer.dry_run(*bottoms)
            assert [(top.shape, top.dtype) for top in quick] == [(top.shape, top.dtype) for top in whole]


def check_dropout(case: LayerCase) -> None:
    """Assert that every output is 0 or x / (1 - ratio), at the given rate, and that the gradient has the same mask and
    scale.
    """
    assert case.type == "Dropout"
    case.forward()
    case.backward()
    x, y = case.net.blobs["data"].data, case.net.blobs["top"].data
    ratio = case.net.layer_dict["layer"].opt.dropout_ratio
    mask = y != 0
    np.testing.assert_allclose(y[mask], x[mask] / (1 - ratio), rtol=1e-5)
    expected = np.where(mask, case.data["top_diffs/top"] / (1 - ratio), 0)
    np.testing.assert_allclose(case.net.blobs["data"].diff, expected, rtol=1e-5)
    assert abs(1 - mask.mean() - ratio) < 4 * np.sqrt(ratio * (1 - ratio) / x.size)
