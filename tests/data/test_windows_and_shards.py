"""Windows drawn within an image, and the positions of a process's records in the batch of all processes."""

from __future__ import annotations

import numpy as np
import pytest

from caffe.data.pipeline import samplers
from caffe.data.pipeline.shard import Shard
from caffe.proto.caffe_pb2 import Sampler


@pytest.mark.parametrize(("scale", "ratio"), [(0.9, 4.0), (0.9, 0.25), (0.5, 2.0), (1.0, 3.0)])
def test_a_window_keeps_its_area_and_lies_within_the_image(scale, ratio):
    sampler = Sampler(min_scale=scale, max_scale=scale, min_aspect_ratio=ratio, max_aspect_ratio=ratio)
    windows = samplers._drawn(sampler, 20, np.random.default_rng(2))
    sides = windows[:, 2:] - windows[:, :2]
    np.testing.assert_allclose(sides.prod(axis=1), scale**2, rtol=1e-5)
    assert windows.min() >= 0
    assert windows.max() <= 1


def test_the_places_of_a_process():
    assert [[Shard(rank, 3).place(own) for own in range(3)] for rank in range(3)] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
