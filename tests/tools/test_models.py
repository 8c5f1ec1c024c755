"""tools/models.py: the page of forks agrees with the registry, and differences are computed as the page describes."""

from __future__ import annotations

import importlib.util

import numpy as np

from tests.conftest import ROOT

_SPEC = importlib.util.spec_from_file_location("models_page", ROOT / "tools" / "models.py")
assert _SPEC is not None
assert _SPEC.loader is not None
models = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(models)


def test_the_page_lists_the_layers_that_there_are():
    page = (ROOT / "docs" / "models.md").read_text()
    assert "\n".join(models.forks()) in page, "run: python tools/models.py"


def test_differences_are_relative_and_detections_are_sets():
    wanted = np.array([[1.0, 4.0]])
    assert models._difference(wanted + np.array([0, 0.5]), wanted) == 0.125
    rows = np.arange(14.0).reshape(1, 1, 2, 7)
    assert models._difference(rows[:, :, ::-1], rows) == 0
    assert models._difference(rows[:, :, :1], rows) == float("inf")
