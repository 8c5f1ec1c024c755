"""Names of forks, and suggestions: neither may lead to another operation."""

from __future__ import annotations

import pytest

from caffe.errors import NetError, ProtoError, did_you_mean
from caffe.filler import filler_types
from caffe.layers import layer_class, layer_types
from caffe.net_spec import assign_proto
from caffe.proto import caffe_pb2, forks, text
from caffe.solver.policy import Policy


def test_no_name_of_the_table_is_known_here():
    """Whoever adds a layer, field or value of a fork deletes its entry."""
    assert not set(forks.LAYERS) & set(layer_types())
    messages = caffe_pb2.DESCRIPTOR.message_types_by_name
    assert not set(forks.OPTIONS) & set(messages["LayerParameter"].fields_by_name)
    for message, fields in forks.FIELDS.items():
        assert not set(fields) & set(messages[message].fields_by_name), message
    values = {value.name for message in messages.values() for enum in message.enum_types for value in enum.values}
    assert not set(forks.VALUES) & (values | set(filler_types()) | set(Policy.names()))


def test_the_options_of_a_layer_of_the_table_stand_there_once():
    assert not {name.replace("_", "") for name in forks.OPTIONS} & set(forks._LAYERS_OF_OPTIONS)


OTHERS = """
GELU CELU GRU LReLU Softplus Softmin LogSoftmax HardSwish LayerNorm InstanceNorm Mult Multiply Tan Sum Sub Max
SeparableConvolution AveragePooling Unpooling HingeRankLoss ContrastiveCenterLoss Unfold Batch Tiling
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
        (
            "layer { cconvolution_param { } }",
            '"cconvolution_param": it holds the options of "CConvolution", a layer type of a fork of Caffe (deep co',
        ),
        (
            "layer { permute_param { } }",
            '"permute_param": it holds the options of "Permute", a layer type of a fork of Caffe (SSD)',
        ),
        (
            "layer { relu6_param { } }",
            '"relu6_param": it holds the options of "ReLU6", a layer type of a fork of Caffe (MobileNet); write "Clip"',
        ),
        (
            "layer { bn_param { } }",
            '"bn_param": it holds the options of "BN", a layer type of a fork of Caffe (SegNet, PSPNet and TSN',
        ),
        ("layers { norm_param { } }", '"norm_param": it comes from a fork of Caffe (SSD)'),
        (
            "layer { pooling_param { ceil_mode: false } }",
            "ceil_mode\": it comes from a fork of Caffe (DenseNet's Caffe); write round_mode",
        ),
        ("layer { convolution_param { hole: 2 } }", '"hole": it comes from a fork of Caffe (DeepLab); write dilation'),
        ("layer { convolution_param { engine: MKLDNN } }", 'got "MKLDNN": it comes from a fork of Caffe (Intel'),
        ("layer { forward_type: FLOAT16 }", '"forward_type": it comes from a fork of Caffe (NVCaffe); remove it'),
        ("layer { eltwise_param { operation: ADD } }", 'did you mean "SUM"'),
        ("layer { pooling_param { pool: MEAN } }", 'did you mean "AVE"'),
        ("layer { unknown_param { } }", "no layer type known here has such options"),
    ],
)
def test_a_field_or_value_of_a_fork_is_called_so(source, error):
    with pytest.raises(ProtoError) as info:
        text.parse(source, caffe_pb2.NetParameter())
    assert error in str(info.value)


def test_other_ways_to_a_name_of_a_fork_say_the_same():
    with pytest.raises(ProtoError, match=r"ceil_mode.*DenseNet"):
        assign_proto(caffe_pb2.PoolingParameter(), "ceil_mode", False)
    with pytest.raises(Exception, match=r'"multifixed": it comes from a fork of Caffe \(YOLO'):
        Policy.find("multifixed")
