"""Denormal numbers are flushed to zero in the backward pass of a training step, and nowhere else."""

from __future__ import annotations

import numpy as np
import torch
from google.protobuf import text_format

import caffe
from caffe.net.engines.denormals import FlushedDenormals, flush_in_worker_threads
from caffe.proto import caffe_pb2

TINY = 1e-40
NET = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 } } }
layer { name: "s" type: "Scale" bottom: "x" top: "y" scale_param { axis: 0 num_axes: 0 filler { value: 3 } } }
layer { name: "l" type: "Reduction" bottom: "y" top: "l" loss_weight: 1 }
"""


def is_flushed() -> bool:
    return float(torch.tensor([TINY]) * 1) == 0


def test_the_setting_holds_inside_and_is_given_back():
    assert not is_flushed()
    with FlushedDenormals():
        assert is_flushed()
        with FlushedDenormals():
            pass
        assert is_flushed()
    assert not is_flushed()
    flush_in_worker_threads()
    assert not is_flushed()


def test_a_training_step_keeps_tiny_values_and_drops_tiny_gradients():
    net = caffe.Net(text_format.Parse(NET, caffe_pb2.NetParameter()), caffe.TRAIN)
    net.blobs["x"].data[...] = TINY
    net.forward_backward()
    assert np.all(net.blobs["y"].data > 0)
    assert net.params["s"][0].diff == 0
    assert not is_flushed()
    net.clear_param_diffs()
    net.forward()
    net.backward()
    assert net.params["s"][0].diff > 0  # layer by layer as the original
