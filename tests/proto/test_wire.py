"""The wire format, compared with protobuf itself."""

from __future__ import annotations

import pytest

from caffe.proto import caffe_pb2, wire


def test_fields_of_every_kind():
    message = caffe_pb2.V0LayerParameter(name="ab", num_output=300, alpha=0.5)
    found = [(f.number, f.kind, f.integer, bytes(f.view)) for f in wire.fields(memoryview(message.SerializeToString()))]
    assert found == [
        (1, wire.BYTES, 0, b"ab"),
        (3, wire.VARINT, 300, b""),
        (13 + 1, wire.FIXED32, 0, b"\0\0\0\x3f"),
    ]


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31, 2**63 + 5])
def test_varint_and_back(value):
    assert wire.varints(memoryview(wire.varint(value) * 2)) == [value, value]


def test_key_is_protobufs():
    assert (
        wire.key(100, 3) + b"\n\x01a"
        == caffe_pb2.NetParameter(layer=[caffe_pb2.LayerParameter(name="a")]).SerializeToString()
    )


@pytest.mark.parametrize(
    ("content", "missing"),
    [
        (b"\x0a\x05abc", 2),
        (b"\x0d\0\0\0", 1),
        (b"\x09\0", 7),
        (b"\x0a", 1),
        (b"\x08\x80", 1),
        (b"\x0b", 0),
        (b"\0\0", 0),
    ],
)
def test_what_is_no_message(content, missing):
    with pytest.raises(wire.WireError) as caught:
        list(wire.fields(memoryview(content)))
    assert caught.value.missing == missing


def test_a_number_of_more_than_64_bits():
    with pytest.raises(wire.WireError, match="64 bits"):
        list(wire.fields(memoryview(b"\x08" + b"\xff" * 11)))
