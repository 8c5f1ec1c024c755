"""Nets agree with the reference recordings: structure, partial runs, gradients, sharing, copying, reshaping."""

import numpy as np
import pytest

from tests.conftest import shared_cases
from tests.replay import Replay, write_files


@pytest.mark.parametrize("path", shared_cases("golden/nets"))
def test_net_case(path, tmp_path, monkeypatch):
    case = np.load(path)
    write_files(case, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert Replay(case, tmp_path).run() > 0
