"""Weights are matched with the layers of a net by name.

A file that matches no layer is an error; unmatched layers are logged.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.errors import NetError
from caffe.proto import caffe_pb2
from caffe.solver import get_solver

INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }\n'


def parse(*names: str, top: str = "") -> caffe_pb2.NetParameter:
    """Return a net of InnerProduct layers with these names, and a ReLU."""
    layers = [
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "x" top: "{name}{top}" '
        'inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }'
        for name in names
    ]
    relu = 'layer { name: "relu" type: "ReLU" bottom: "x" top: "positive" }'
    return text_format.Parse(INPUT + "\n".join([*layers, relu]), caffe_pb2.NetParameter(name="n"))


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.fixture(params=["caffemodel", "h5"])
def path(request, tmp_path):
    """The path of a file with weights of the layers "a" and "b"."""
    path = str(tmp_path / f"ab,2.{request.param}")
    net = caffe.Net(parse("a", "b"), caffe.TEST)
    (net.save if request.param == "caffemodel" else net.save_hdf5)(path)
    return path


def test_a_file_without_a_layer_of_the_net_is_refused(path):
    says = re.escape(f'{path} has no weights for any layer of net "n": it has "a", "b", the net needs "c", "d"')
    with pytest.raises(NetError, match=says):
        caffe.Net(parse("c", "d"), caffe.TEST, weights=path)
    net = caffe.Net(parse("c", "d"), caffe.TEST)
    before = net.params["c"][0].data.copy()
    with pytest.raises(NetError, match=says):
        net.copy_from(path)
    np.testing.assert_array_equal(net.params["c"][0].data, before)


def test_a_net_without_blobs_takes_any_file(path, caplog):
    caffe.Net(parse(), caffe.TEST, weights=path)
    assert not warnings(caplog)


def test_layers_without_weights_in_the_file_are_logged_once(path, caplog):
    net = caffe.Net(parse("a", "c", "d"), caffe.TEST)
    net.copy_from(path)
    assert warnings(caplog) == [
        f'net "n": no weights in {path} for "c" (InnerProduct), "d" (InnerProduct): they keep their own'
    ]
    caplog.clear()
    caffe.Net(parse("b", "a"), caffe.TEST).copy_from(path)
    assert not warnings(caplog)


def test_a_shared_blob_gets_its_weights_from_its_owner(tmp_path, caplog):
    param = parse("a", "b")
    for layer in param.layer[1:3]:
        for index in range(2):
            layer.param.add(name=f"w{index}")
    caffe.Net(param, caffe.TEST).save_hdf5(tmp_path / "shared.h5")
    caffe.Net(param, caffe.TEST, weights=tmp_path / "shared.h5")
    assert not warnings(caplog)


@pytest.mark.parametrize("positional", [True, False])
def test_a_comma_belongs_to_the_path_in_pycaffe(path, positional):
    """Only `weights` of a solver and of the commands can be a list."""
    assert "," in path
    net = caffe.Net(parse("a", "b"), path, caffe.TEST) if positional else caffe.Net(parse("a", "b"), 1, weights=path)
    other = caffe.Net(parse("a", "b"), caffe.TEST)
    other.copy_from(path)
    np.testing.assert_array_equal(net.params["b"][0].data, other.params["b"][0].data)


def test_weights_given_twice_are_refused(path):
    with pytest.raises(NetError, match="weights are given twice"):
        caffe.Net(parse("a"), path, caffe.TEST, weights="other.caffemodel")


def test_the_files_of_a_solver_fill_the_net_together(tmp_path, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)
    caffe.Net(parse("a"), caffe.TEST).save("a.caffemodel")
    caffe.Net(parse("b"), caffe.TEST).save("b.caffemodel")
    param = caffe_pb2.SolverParameter(base_lr=1, lr_policy="fixed", weights=["a.caffemodel, b.caffemodel"])
    param.net_param.CopyFrom(parse("a", "b"))
    get_solver(param)
    assert not warnings(caplog)
    param.weights[:] = ["a.caffemodel"]
    get_solver(param)
    assert warnings(caplog) == ['net "n": no weights in a.caffemodel for "b" (InnerProduct): they keep their own']
    param.weights[:] = ["a.caffemodel"]
    param.net_param.CopyFrom(parse("b"))
    with pytest.raises(NetError, match=r"a\.caffemodel has no weights for any layer"):
        get_solver(param)


def test_nets_without_a_common_layer_share_nothing():
    net, other = caffe.Net(parse("a"), caffe.TEST), caffe.Net(parse("b"), caffe.TEST)
    with pytest.raises(
        NetError, match='net "n" has no weights for any layer of net "n": it has "b", the net needs "a"'
    ):
        net.share_with(other)
    caffe.Net(parse(), caffe.TEST).share_with(other)


def test_a_test_net_shares_a_layer_with_the_train_net(caplog):
    param = caffe_pb2.SolverParameter(base_lr=1, lr_policy="fixed", test_interval=1, test_iter=[1])
    param.train_net_param.CopyFrom(parse("a", "b"))
    param.test_net_param.add().CopyFrom(parse("a", "c"))
    get_solver(param)
    assert warnings(caplog) == ['Test net #0: the train net has no weights for "c" (InnerProduct): they stay untrained']
    param.test_net_param[0].CopyFrom(parse("c"))
    with pytest.raises(NetError, match="Test net #0 takes its weights from the train net: "):
        get_solver(param)
