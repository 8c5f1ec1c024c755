"""Weights that several nets share: repeated sharing, and parameters that layers of the same net share.

Comments give the numbers of the original if they are more precise than the assertion.
"""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.proto import caffe_pb2
from tests.ownership.runner import mirrored

ONE = np.ones((1, 1), np.float32)
CHAIN = """
name: "net" force_backward: true
layer {{ name: "i" type: "Input" top: "i" input_param {{ shape {{ dim: 1 dim: 1 }} }} }}
layer {{ name: "a" type: "InnerProduct" bottom: "i" top: "a" {0}
  inner_product_param {{ num_output: 1 bias_term: false }} }}
layer {{ name: "b" type: "InnerProduct" bottom: "a" top: "b" {0}
  inner_product_param {{ num_output: 1 bias_term: false }} }}
"""


@pytest.fixture(params=["arrays over the weights", "arrays as copies"], autouse=True)
def arrays(request, monkeypatch):
    """Run with arrays that are views of the weights, or copies as on a GPU."""
    if request.param == "arrays as copies":
        mirrored(monkeypatch.setattr)


def net(a, b, shared=False):
    text = CHAIN.format('param { name: "w" }' if shared else "")
    made = caffe.Net(text_format.Parse(text, caffe_pb2.NetParameter()), caffe.TRAIN)
    made.params["a"][0].data[...], made.params["b"][0].data[...] = a, b
    made.blobs["i"].data[...] = 1
    return made


def seen(made):
    """Return the two weights as a user reads them, and the output of the net."""
    return [made.params[name][0].data.item() for name in "ab"], made.forward()["b"].item()


def test_a_net_keeps_the_weights_that_it_shared_when_their_net_shares_again():
    first, second, third = net(1, 1), net(2, 2), net(3, 3)
    third.share_with(second)
    second.share_with(first)
    assert [seen(each) for each in (first, second, third)] == [([1, 1], 1), ([1, 1], 1), ([2, 2], 4)]
    first.params["a"][0].data[...] = 10
    third.params["a"][0].data[...] = 30
    assert [seen(each) for each in (first, second, third)] == [([10, 1], 10), ([10, 1], 10), ([30, 2], 60)]


def test_a_kept_array_of_weights_stays_with_the_nets_that_use_them():
    first, second, third = net(1, 1), net(2, 2), net(3, 3)
    third.share_with(second)
    kept = second.params["a"][0].data
    second.share_with(first)
    kept[...] = 7
    assert [seen(each) for each in (first, second, third)] == [([1, 1], 1), ([1, 1], 1), ([7, 2], 14)]


def test_sharing_keeps_what_was_written_into_the_other_nets_weights():
    source, other = net(1, 2, shared=True), net(3, 4, shared=True)
    other.share_with(source)
    assert [seen(each) for each in (source, other)] == [([2, 2], 4), ([2, 2], 4)]


def test_layers_that_share_in_their_net_get_the_weights_of_layers_that_do_not():
    source, other = net(2, 3), net(5, 5, shared=True)
    other.share_with(source)
    assert seen(other) == ([2, 3], 6)
    other.params["b"][0].data[...] = 8
    assert [seen(each) for each in (source, other)] == [([2, 8], 16), ([2, 8], 16)]
    other.backward(b=ONE)
    assert [other.params[name][0].diff.item() for name in "ab"] == [10, 10]  # one diff: 8 + 2
    assert [source.params[name][0].diff.item() for name in "ab"] == [0, 0]


def test_layers_that_do_not_share_keep_a_diff_each_over_one_weight():
    source, other = net(5, 5, shared=True), net(2, 3)
    other.share_with(source)
    assert seen(other) == ([5, 5], 25)
    other.params["a"][0].data[...] = 4
    assert seen(other) == ([4, 4], 16)
    other.backward(b=ONE)
    assert [other.params[name][0].diff.item() for name in "ab"] == [4, 4]
    other.clear_param_diffs()
    other.blobs["b"].diff[...] = 1
    other.forward_backward()
    assert [other.params[name][0].diff.item() for name in "ab"] == [4, 4]
    assert source.params["a"][0].diff.item() == 0
