"""Data layers deliver the batches that the reference recorded."""

from __future__ import annotations

import numpy as np
import pytest

import tests.replay as replay
from caffe.errors import CaffeError
from tests.conftest import shared_cases
from tests.data.helpers import copy_of

# Fields that the original ignores silently are an error here.
REFUSED = {"data_old_transform_fields"}
# JPEG pixels may differ by 2 with another decoder, resized ones by 1; everything else is exact.
APPROXIMATE = ("data_encoded", "image_", "window_")


@pytest.mark.parametrize("path", shared_cases("golden/data/cases"))
def test_reference_case(path, tmp_path, monkeypatch):
    folder = copy_of(".", tmp_path)
    monkeypatch.chdir(folder)
    case = np.load(path)
    if path.stem in REFUSED:
        with pytest.raises(CaffeError, match="transform_param"):
            replay.Replay(case, folder).run()
        return
    if not path.stem.startswith(APPROXIMATE):
        monkeypatch.setattr(replay, "assert_close", np.testing.assert_array_equal)
    assert replay.Replay(case, folder).run() > 0
