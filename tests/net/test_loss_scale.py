"""The loss scale of float16 gradients: halved after an overflow, doubled after some updates, and an error at its
minimum.
"""

from __future__ import annotations

import pytest
import torch

from caffe.errors import SolverError
from caffe.net.plan.loss_scale import LossScale

FINE = [torch.ones(2, 3), torch.full((5,), -7.0)]


@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan")])
def test_overflow_halves_it_and_leaves_the_update_out(bad, caplog):
    scale = LossScale()
    with caplog.at_level("INFO", "caffe"):
        assert scale.accepts(FINE, 3)
        assert not scale.accepts([*FINE, torch.tensor([1.0, bad])], 4)
    assert (scale.value, scale.good) == (2.0**15, 0)
    assert caplog.messages == ["Iteration 4: gradients overflowed FLOAT16, no update; loss scale 32768"]


def test_it_doubles_after_enough_updates_without(caplog):
    scale = LossScale()
    scale.patience = 3
    with caplog.at_level("INFO", "caffe"):
        for iteration in range(7):
            assert scale.accepts(FINE, iteration)
    assert (scale.value, scale.good) == (2.0**18, 1)
    assert caplog.messages[0] == "Iteration 2: no overflow in 3 updates; loss scale 131072"
    scale.value, scale.good = scale.most, 3
    assert scale.accepts(FINE, 8)
    assert scale.value == scale.most


def test_no_scale_small_enough_is_an_error():
    scale = LossScale()
    nothing = [torch.tensor(float("nan"))]
    assert not any(scale.accepts(nothing, iteration) for iteration in range(26))
    with pytest.raises(SolverError, match=r"Iteration 26: .* training has diverged.* precision: BFLOAT16"):
        scale.accepts(nothing, 26)
    assert scale.value == scale.least


def test_a_net_without_gradients_is_fine():
    assert LossScale().accepts([], 0)
