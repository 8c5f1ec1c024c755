"""Layers with the same name: an error if blobs or positions are stored by that name, otherwise a warning."""

from __future__ import annotations

import re

import numpy as np
import pytest

import caffe
from caffe.errors import FileError, LayerError
from caffe.proto import caffe_pb2, text
from caffe.solver import get_solver

INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }'


def dense(name: str, top: str, rules: str = "") -> str:
    named = f'name: "{name}"' if name else ""
    return (
        f'layer {{ {named} type: "InnerProduct" bottom: "x" top: "{top}" {rules} inner_product_param {{ num_output: 5 '
        'weight_filler { type: "xavier" } } }'
    )


def relu(name: str, top: str = "x") -> str:
    return f'layer {{ name: "{name}" type: "ReLU" bottom: "x" top: "{top}" }}'


@pytest.fixture
def build(tmp_path):
    """Return a function that builds a net of the given layers, one on each line after the first."""

    def build(*layers: str, phase: int = caffe.TEST) -> caffe.Net:
        path = tmp_path / "net.prototxt"
        path.write_text("\n".join([INPUT, *layers]))
        return caffe.Net(path, phase)

    return build


@pytest.mark.parametrize(
    ("first", "second", "kind", "other"),
    [
        (dense("ip", "a"), dense("ip", "b"), "InnerProduct", "InnerProduct"),
        (dense("ip", "a"), relu("ip", "b"), "ReLU", "InnerProduct"),
        (relu("ip"), dense("ip", "a"), "InnerProduct", "ReLU"),
    ],
)
def test_two_layers_of_one_name_of_which_one_has_blobs_are_refused(build, tmp_path, first, second, kind, other):
    path = tmp_path / "net.prototxt"
    says = f'{path}:4: layer "ip" ({kind}): has the name of an earlier layer ({other}, {path}:3)'
    with pytest.raises(LayerError, match=re.escape(says)):
        build(relu("r"), first, second)


def test_two_layers_without_a_name_of_which_one_has_blobs_are_refused(build, tmp_path):
    path = tmp_path / "net.prototxt"
    says = f'{path}:3: layer "" (InnerProduct): has no name, like an earlier layer (InnerProduct, {path}:2)'
    with pytest.raises(LayerError, match=re.escape(says)):
        build(dense("", "a"), dense("", "b"))


def test_two_data_layers_of_one_name_are_refused(build):
    """A snapshot stores the positions of data layers by name."""
    shape = "memory_data_param { batch_size: 1 channels: 1 height: 1 width: 1 }"
    data = f'layer {{ name: "d" type: "MemoryData" top: "%s" top: "%s" {shape} }}'
    with pytest.raises(LayerError, match="has the name of an earlier layer"):
        build(data % ("a", "b"), data % ("c", "d"))


def test_twins_of_two_phases_are_one_layer_each(build):
    twins = dense("ip", "a", "include { phase: TRAIN }"), dense("ip", "a", "include { phase: TEST }")
    assert list(build(*twins).params) == ["ip"]


def test_layers_without_blobs_may_share_a_name(build, tmp_path, caplog):
    net = build(
        relu("r"),
        relu("r"),
        'layer { name: "r" type: "Power" bottom: "x" top: "y" power_param { scale: 2 } }',
        dense("ip", "z"),
    )
    messages = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert messages == [
        'layers share a name: "r" (3 layers); start= and end= of forward and backward take the first, layer_dict, '
        "top_names and bottom_names hold the last"
    ]
    net.blobs["x"].data[...] = 3
    assert (net.forward()["y"] == 6).all()
    assert list(net.forward(end="r")) == [net.steps[1].top_names[0]]
    assert net.layer_dict["r"].type == "Power"
    weights = net.params["ip"][0].data.copy()
    net.save(tmp_path / "net.caffemodel")
    net.save_hdf5(tmp_path / "net.h5")
    for name in ("net.caffemodel", "net.h5"):
        net.params["ip"][0].data[...] = 0
        net.copy_from(tmp_path / name)
        np.testing.assert_array_equal(net.params["ip"][0].data, weights)


def test_sources_of_one_name_are_all_closed(build):
    data = 'layer { name: "d" type: "DummyData" top: "%s" dummy_data_param { shape { dim: 2 } } }'
    net = build(data % "a", data % "b")
    closed = []
    for index, layer in enumerate(net.layers[1:3]):
        layer.close = lambda index=index: closed.append(index)
    net.close()
    assert closed == [0, 1]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["", "b"], 'layer "" is not a valid HDF5 path'),
        (["a/"], 'layer "a/" is not a valid HDF5 path'),
        (["/a"], 'layer "/a" is not a valid HDF5 path'),
        (["."], 'layer "." is not a valid HDF5 path'),
        (["a/b", "a//b"], 'layer "a//b" is not a valid HDF5 path'),
        (["a", "a/1"], 'layer "a/1" is the HDF5 path of a blob of layer "a"'),
        (["a/1/b", "a"], 'layer "a/1/b" is the HDF5 path of a blob of layer "a"'),
    ],
)
def test_names_that_hdf5_cannot_hold_are_refused_before_training(build, tmp_path, names, says):
    net = build(*[dense(name, f"top{index}") for index, name in enumerate(names)])
    with pytest.raises(FileError, match=re.escape(says)):
        net.save_hdf5(tmp_path / "net.h5")
    assert not (tmp_path / "net.h5").exists()
    net.save(tmp_path / "net.caffemodel")
    net.copy_from(tmp_path / "net.caffemodel")
    param = caffe_pb2.SolverParameter(base_lr=1, lr_policy="fixed", net=str(tmp_path / "net.prototxt"))
    get_solver(param)
    param.snapshot_format = param.HDF5
    param.snapshot_prefix = str(tmp_path / "snap")
    with pytest.raises(FileError, match=re.escape(says)):
        get_solver(param)


def test_layers_without_blobs_are_left_out_of_hdf5_where_their_name_is_no_path(build, tmp_path):
    net = build(relu(""), relu("ip/0"), dense("ip", "a"))
    net.save_hdf5(tmp_path / "net.h5")
    weights = net.params["ip"][0].data.copy()
    net.params["ip"][0].data[...] = 0
    net.copy_from(tmp_path / "net.h5")
    np.testing.assert_array_equal(net.params["ip"][0].data, weights)


def test_a_file_with_two_layers_of_one_name_loads_the_second_and_warns(build, tmp_path, caplog):
    """The original also fills the net's layer twice. A layer of this name without blobs discards no weights."""
    paths = [tmp_path / f"{name}.caffemodel" for name in ("first", "second", "both")]
    nets = [build(dense("ip", "a")), build(dense("ip", "a")), build(relu("ip"))]
    for net, path in zip(nets, paths, strict=True):
        net.save(path)
    relus = paths[2].read_bytes()
    paths[2].write_bytes(b"".join(path.read_bytes() for path in paths[:2]) + relus)
    nets[0].copy_from(paths[2])
    messages = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert messages == [f'{paths[2]}: has weights for two layers "ip": the weights of the second are used']
    np.testing.assert_array_equal(nets[0].params["ip"][0].data, nets[1].params["ip"][0].data)


def test_tops_that_a_net_adds_are_not_written():
    """A loss without a top gets an automatic top, which is not part of the definition."""
    loss = 'layer { name: "loss" type: "EuclideanLoss" bottom: "x" bottom: "y" }'
    inputs = 'layer { name: "in" type: "Input" top: "x" top: "y" input_param { shape { dim: 2 } } }'
    net = caffe.Net(text.parse(inputs + loss, caffe_pb2.NetParameter()), caffe.TEST)
    assert len(net.top_names["loss"]) == 1
    assert [list(layer.top) for layer in net.to_proto().layer] == [["x", "y"], []]
