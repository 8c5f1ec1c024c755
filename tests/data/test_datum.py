"""Datum records: the decoded pixels and labels, and the records that are rejected."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from caffe.data.databases.datum import DatumReader, encode_datum, planes
from caffe.errors import DataError
from caffe.proto.caffe_pb2 import Datum
from tests.data.helpers import images


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def test_raw_records_of_one_size_and_of_others():
    read = DatumReader()
    for shape in [(3, 5, 7), (3, 5, 7), (3, 7, 5), (1, 2, 3), (3, 5, 7)]:
        for label, image in enumerate(images(3, shape, seed=sum(shape))):
            got, got_label = read(memoryview(encode_datum(image, label)))
            np.testing.assert_array_equal(got, image)
            assert got_label == label


def test_what_follows_the_pixels_is_read():
    read, image = DatumReader(), images(1)[0]
    raw = encode_datum(image, 2)
    read(raw)
    assert read(raw + Datum(label=77).SerializeToString())[1] == 77
    other = images(1, seed=9)[0]
    np.testing.assert_array_equal(read(raw + Datum(data=other.tobytes()).SerializeToString())[0], other)
    with pytest.raises(DataError, match="values where channels x height x width = 3 x 6 x 7"):
        read(raw + Datum(height=6).SerializeToString())
    with pytest.raises(DataError, match="cannot be decoded"):
        read(raw + Datum(encoded=True).SerializeToString())


def test_float_records():
    values = np.linspace(-3, 4, 30, dtype=np.float32)
    datum = Datum(channels=2, height=3, width=5, label=-4, float_data=values)
    got, label = DatumReader()(datum.SerializeToString())
    assert got.dtype == np.float32
    assert label == -4
    np.testing.assert_array_equal(got, values.reshape(2, 3, 5))


def test_encoded_records_keep_their_channels_unless_forced():
    colour = images(1, (6, 7, 3))[0]
    for image, channels in [(colour, 3), (colour[..., 0], 1), (images(1, (6, 7, 4))[0], 4)]:
        value = Datum(data=png(image), encoded=True, label=3).SerializeToString()
        got, label = DatumReader()(value)
        assert (got.shape, label) == ((channels, 6, 7), 3)
        np.testing.assert_array_equal(got, planes(image))
        assert DatumReader(color=True)(value)[0].shape == (3, 6, 7)
        assert DatumReader(color=False)(value)[0].shape == (1, 6, 7)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"\xff\xff\xff", "is not a Datum message"),
        (encode_datum(images(1)[0], 0)[:-9], "is not a Datum message"),
        (Datum(label=1).SerializeToString(), "holds 0 values"),
        (Datum(channels=3, height=5, width=7, data=b"1234").SerializeToString(), "holds 4 values .* 3 x 5 x 7"),
        (Datum(data=b"no picture", encoded=True).SerializeToString(), "cannot be decoded"),
        (Datum(encoded=True).SerializeToString(), "cannot be decoded"),
        (Datum(data=png(np.zeros((5, 7), np.uint16)), encoded=True).SerializeToString(), "expected 8 bits"),
    ],
)
def test_records_that_are_refused(value, message):
    read = DatumReader()
    for _ in range(2):
        with pytest.raises(DataError, match=message):
            read(value)
        read(encode_datum(images(1)[0], 0))


def test_force_color_of_raw_pixels_is_refused_where_it_would_matter():
    colour, grey = encode_datum(images(1)[0], 0), encode_datum(images(1, (1, 5, 7))[0], 0)
    assert DatumReader(color=True)(colour)[0].shape == (3, 5, 7)
    with pytest.raises(DataError, match="force_color works on encoded images only"):
        DatumReader(color=True)(grey)
    with pytest.raises(DataError, match="force_gray works on encoded images only"):
        DatumReader(color=False)(colour)
