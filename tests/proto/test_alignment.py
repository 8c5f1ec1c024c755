"""AutoCrop of RCF is converted to an equal Crop."""

from __future__ import annotations

import pytest

import caffe
from caffe.errors import ProtoError
from caffe.proto import caffe_pb2, text, upgrade

HEAD = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 3, 40, 48] } } }'
CROP = 'layer { name: "crop" type: "AutoCrop" bottom: "up" bottom: "data" top: "y" }'


def _conv(name: str, bottom: str, options: str, kind: str = "Convolution") -> str:
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{name}" {options} }}'


def _window(options: str) -> str:
    return f"convolution_param {{ num_output: 2 {options} }}"


def _pool(name: str, bottom: str, stride: int) -> str:
    return _conv(name, bottom, f"pooling_param {{ kernel_size: 2 stride: {stride} }}", "Pooling")


THREE = [
    _conv("c1", "data", _window("kernel_size: 3 pad: 1")),
    _pool("p1", "c1", 2),
    _pool("p2", "p1", 2),
    _pool("p3", "p2", 2),
]


def _net(*layers: str) -> caffe_pb2.NetParameter:
    net = text.parse("\n".join([HEAD, *layers, CROP]), caffe_pb2.NetParameter())
    upgrade.upgrade_net(net, "net.prototxt")
    return net


@pytest.mark.parametrize(("pools", "kernel", "stride", "offset"), [(1, 4, 2, 1), (2, 8, 4, 2), (3, 16, 8, 4)])
def test_offsets_of_rcf(pools, kernel, stride, offset):
    """The offsets are those in RCF's own nets after conv2, conv3 and conv4."""
    up = _conv("up", f"p{pools}", _window(f"kernel_size: {kernel} stride: {stride}"), "Deconvolution")
    net = _net(*THREE[: pools + 1], up)
    assert net.layer[-1].type == "Crop"
    assert list(net.layer[-1].crop_param.offset) == [offset, offset]
    built = caffe.Net(net, caffe.TEST)
    assert built.blobs["y"].data.shape == (1, 2, 40, 48)


def test_offset_behind_a_dilated_convolution():
    """conv5 of RCF: a pool with stride 1, and a dilated convolution that keeps the size."""
    dilated = _conv("c5", "p4", _window("kernel_size: 3 pad: 2 dilation: 2"))
    up = _conv("up", "c5", _window("kernel_size: 16 stride: 8"), "Deconvolution")
    net = _net(*THREE, _pool("p4", "p3", 1), dilated, up)
    assert list(net.layer[-1].crop_param.offset) == [0, 0]


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        ([_conv("up", "data", _window("kernel_size: 3 stride: 2"))], "2 times the resolution of the other"),
        ([_conv("up", "data", _window("kernel_size: 4"))], "offset would be -1.5, expected 0, 1, 2"),
        ([_conv("up", "data", "", "Flatten")], r'lies "up" \(Flatten\), which has no coordinate map'),
        (['layer { name: "z" type: "DummyData" top: "up" }'], '"up" and "data" have no common source blob'),
    ],
)
def test_nets_without_an_offset(layers, match):
    with pytest.raises(ProtoError, match=rf'net.prototxt: layer "crop" \(AutoCrop\): .*{match}'):
        _net(*layers)
