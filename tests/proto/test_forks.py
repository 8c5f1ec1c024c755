"""Errors for names of forks, and suggestions: neither may name a different operation."""

from __future__ import annotations

import pytest

from caffe.errors import NetError, ProtoError, did_you_mean
from caffe.filler import filler_types
from caffe.layers import layer_class, layer_types
from caffe.proto import caffe_pb2, forks, text
from caffe.solver.policy import Policy


def test_no_name_of_the_table_is_known_here():
    """When a layer or value of a fork is implemented, its entry in the table must be deleted."""
    assert not set(forks.LAYERS) & set(layer_types())
    assert not set(forks.VALUES) & {*filler_types(), *Policy.names(), "L1", "L2"}


OTHERS = """
GELU CELU GRU LReLU Softplus Softmin LogSoftmax Mult Multiply Tan Sum Sub Max
SeparableConvolution AveragePooling HingeRankLoss ContrastiveCenterLoss Unfold Batch Tiling
"""


@pytest.mark.parametrize("name", [*forks.LAYERS])
def test_a_layer_of_a_fork_is_called_so(name):
    with pytest.raises(NetError) as info:
        layer_class(name)
    assert str(info.value).startswith(f'layer type "{name}" comes from a fork of Caffe ({forks.LAYERS[name][0]}), and ')
    assert "did you mean" not in str(info.value)


@pytest.mark.parametrize(
    ("word", "type_name"),
    [
        ("Poolling", "Pooling"),
        ("Covnolution", "Convolution"),
        ("inner_product", "InnerProduct"),
        ("SOFTMAX_LOSS", "SoftmaxWithLoss"),
        ("relu", "ReLU"),
        ("DeConvolution", "Deconvolution"),
        ("Eltwis", "Eltwise"),
        ("Conv", "Convolution"),
    ],
)
def test_a_misspelled_layer_is_understood(word, type_name):
    with pytest.raises(NetError, match=f'did you mean "{type_name}"'):
        layer_class(word)


@pytest.mark.parametrize(
    "word",
    OTHERS.split(),
)
def test_another_operation_is_not_suggested(word):
    with pytest.raises(NetError) as info:
        layer_class(word)
    assert "did you mean" not in str(info.value)


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("conv1", ["conv2", "conv3"], ""),
        ("fc77", ["fc7"], ""),
        ("conv4_1", ["conv4_2", "conv5_1"], ""),
        ("bf61", ["fp32", "bf16"], "bf16"),
        ("L3", ["L1", "L2"], ""),
        ("ab", ["ac", "b"], ""),
        ("", ["data"], ""),
        ("data", [], ""),
        ("SUB", ["PROD", "SUM", "MAX"], ""),
        ("MIN", ["PROD", "SUM", "MAX"], ""),
        ("iter", ["iterations", "weights"], "iterations"),
        ("AdaMax", ["Adam", "AdaGrad", "AdaDelta"], ""),
        ("lable", ["label", "data"], "label"),
        ("data_mean", ["data", "mean"], ""),
    ],
)
def test_what_is_close_enough_for_a_suggestion(word, known, meant):
    assert did_you_mean(word, known) == (f'; did you mean "{meant}"?' if meant else "")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("layer { eltwise_param { operation: ADD } }", 'did you mean "SUM"'),
        ("layer { pooling_param { pool: MEAN } }", 'did you mean "AVE"'),
        ("layer { pooling_param { pad_mode: 1 } }", 'PoolingParameter has no field "pad_mode"'),
        ("layer { unknown_param { } }", "no layer type known here has such options"),
    ],
)
def test_what_no_fork_has_is_an_error(source, error):
    with pytest.raises(ProtoError) as info:
        text.parse(source, caffe_pb2.NetParameter())
    assert error in str(info.value)


def test_a_policy_or_regularization_of_a_fork_is_called_so():
    assert forks.foreign_value("gabor").endswith("; use one of the known ones")
    assert forks.foreign_value("stepearly").endswith('; write "plateau" (docs/solvers.md)')
    with pytest.raises(Exception, match=r'"stepearly": it comes from a fork of Caffe \(junhyukoh'):
        Policy.find("stepearly")
