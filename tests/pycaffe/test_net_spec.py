"""NetSpec and coord_map give the same prototxts as the reference."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import caffe
from caffe import NetSpec, coord_map, to_proto
from caffe import layers as L
from caffe import params as P
from caffe.errors import NetError, ProtoError
from caffe.proto import caffe_pb2, text
from tests.conftest import reference, shared

STORED = reference("golden", "pycaffe", "netspec.json")
CASES = json.loads(STORED.read_text()) if STORED.exists() else {"netspec": {}, "coord_map_from_to": {}}


@pytest.mark.parametrize("name", CASES["netspec"] or [None])
def test_text(name):
    shared("golden", "pycaffe", "netspec.json")
    case = CASES["netspec"][name]
    names = {"NetSpec": NetSpec, "L": L, "P": P}
    exec(case["code"], names)
    net = names["n"].to_proto()
    assert net == text.parse(case["prototxt"], caffe_pb2.NetParameter())
    assert text.dumps(net).split() == text.dumps(text.parse(case["prototxt"], caffe_pb2.NetParameter())).split()


@pytest.mark.parametrize("name", CASES["coord_map_from_to"] or [None])
def test_coord_map_from_to(name):
    shared("golden", "pycaffe", "netspec.json")
    case = CASES["coord_map_from_to"][name]
    names = {"L": L}
    exec(case["code"], names)
    axis, scale, offset = coord_map.coord_map_from_to(names[case["from"]], names[case["to"]])
    assert axis == case["axis"]
    np.testing.assert_allclose(np.atleast_1d(scale), case["a"])
    np.testing.assert_allclose(np.atleast_1d(offset), case["b"])


def test_names_fields_and_functions():
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 3, 5, 7]})
    # the message of its options has the name of another type
    n.up = L.Deconvolution(n.data, num_output=2, kernel_size=3)
    n["up/drop"] = L.Dropout(n.up, dropout_ratio=0.25, include={"phase": caffe.TEST}, param=[])
    assert n["up"] is n.up
    net = n.to_proto()
    assert [layer.name for layer in net.layer] == ["data", "up", "up/drop"]
    assert net.layer[1].convolution_param.num_output == 2
    assert net.layer[2].include[0].phase == caffe.TEST
    assert net.layer[2].dropout_param.dropout_ratio == 0.25
    del n["up/drop"]
    assert len(n.to_proto().layer) == 2
    assert P.Pooling.AVE == caffe_pb2.PoolingParameter.AVE
    assert to_proto(n.up).layer[0].name == "Input1"
    assert n.up.to_proto() == to_proto(n.up)


def test_a_net_may_be_deeper_than_pythons_stack():
    top = L.Input(shape={"dim": [1, 2]})
    for _ in range(2 * sys.getrecursionlimit()):
        top = L.ReLU(top)
    assert len(to_proto(top).layer) == 2 * sys.getrecursionlimit() + 1


def test_mistakes_are_told():
    with pytest.raises(TypeError, match=r"Pooling input 0 is not a Top \(type is <class 'str'>\)") as caught:
        L.Pooling("data")
    assert "L.Convolution(...)" in caught.value.__notes__[0]
    with pytest.raises(ProtoError, match=r'no field "kernel_sise"; did you mean "kernel_size"'):
        to_proto(L.Pooling(L.Input(), kernel_sise=2))
    with pytest.raises(ProtoError, match=r"num_output cannot be 'many'"):
        to_proto(L.InnerProduct(L.Input(), num_output="many"))
    with pytest.raises(NetError, match="in_place"):
        L.Eltwise(L.Input(), L.Input(), in_place=True)
    with pytest.raises(AttributeError, match="Pooling"):
        _ = P.Poolin.MAX
    n = NetSpec()
    n.data = L.Input()
    with pytest.raises(AttributeError, match=r'no blob "dat"; did you mean "data"'):
        _ = n.dat


def test_crop():
    data = L.Input()
    conv = L.Convolution(data, kernel_size=3, stride=2, pad=10)
    up = L.Deconvolution(conv, convolution_param={"kernel_size": 5, "stride": 2})
    crop = coord_map.crop(up, data)
    assert crop.fn.params == {"crop_param": {"axis": 2, "offset": [11]}}
    assert coord_map.coord_map_from_to(crop, data)[2] == 0
    with pytest.raises(NetError, match="resolution"):
        coord_map.crop(conv, data)
    with pytest.raises(NetError, match="no map"):
        coord_map.crop(conv, L.Input())
    with pytest.raises(coord_map.AxisMismatchException):
        coord_map.compose((1, 1, 0), (2, 1, 0))
    with pytest.raises(AssertionError, match="pad_h"):
        coord_map.conv_params(L.Pooling(data, kernel_size=2, pad_h=1).fn)


def test_a_net_spec_tells_the_names_of_its_blobs():
    spec = NetSpec()
    spec.data = L.Input(shape={"dim": [1, 3]})
    spec.fc = L.InnerProduct(spec[spec.keys()[-1]], num_output=2)
    assert spec.keys() == ["data", "fc"]


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("MaskedConvolution", {"num_output": 3}, "convolution_param"),  # two messages share the options
        ("MaskedConvolution", {"rows": True}, "masked_convolution_param"),
        ("CConvolution", {"num_output": 3}, "cconvolution_param"),  # two fields have this message
        ("MarginInnerProduct", {"num_output": 3}, "margin_inner_product_param"),
        ("DepthToSpace", {"block_size": 2}, "depth_to_space_param"),
    ],
)
def test_options_go_into_the_field_that_the_type_reads(kind, options, expected):
    n = caffe.NetSpec()
    n.x = L.Input(shape={"dim": [1, 4, 3, 3]})
    n.y = getattr(L, kind)(n.x, **options)
    given = [field.name for field, _ in n.to_proto().layer[1].ListFields() if field.name.endswith("_param")]
    assert given == [expected]
