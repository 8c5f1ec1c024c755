"""fast_decode: the size at which a JPEG is decoded. The option is off by default."""

from __future__ import annotations

from contextlib import suppress

import cv2
import numpy as np
import pytest

from caffe.data.databases.datum import decode
from caffe.data.databases.lmdb import LmdbWriter
from caffe.errors import CaffeError, DataError
from caffe.proto.caffe_pb2 import Datum
from tests.data.helpers import layer


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    coarse = np.random.default_rng(1).integers(0, 256, (6, 7, channels), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(height: int, width: int, channels: int = 3, *options: int) -> bytes:
    return cv2.imencode(".jpg", picture(height, width, channels), list(options))[1].tobytes()


@pytest.mark.parametrize(
    ("target", "size"),
    [
        ((100, 80), (130, 160)), ((65, 65), (65, 80)), ((32, 30), (33, 40)),
        ((131, 20), (260, 320)), ((300, 300), (260, 320)),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("color", "channels"), [(True, 3), (False, 3), (None, 3), (None, 1)])
def test_a_jpeg_is_decoded_at_the_smallest_size_that_holds_the_target(target, size, color, channels):
    found = decode(jpeg(260, 320, channels), color, target)
    assert found.shape[:2] == size
    assert found.ndim == (3 if color or (color is None and channels == 3) else 2)


def test_progressive_files_other_formats_and_damaged_data_are_decoded_too():
    assert decode(jpeg(260, 320, 3, cv2.IMWRITE_JPEG_PROGRESSIVE, 1), True, (32, 32)).shape == (33, 40, 3)
    png = cv2.imencode(".png", picture(64, 64))[1].tobytes()
    np.testing.assert_array_equal(decode(png, True, (8, 8)), decode(png, True))
    data = jpeg(64, 64)
    for end in range(2, 700, 7):
        with suppress(DataError):  # no other error
            decode(data[:end], True, (8, 8))


IMAGE = """
name: "d" type: "ImageData" top: "data" top: "label" data_param {{ {} }}
image_data_param {{ source: "{}" batch_size: 1 {} }}
"""
DATA = """
name: "d" type: "Data" top: "data" top: "label"
data_param {{ source: "{}" backend: LMDB batch_size: 1 {} }} {}
"""
WARP = "transform_param { resize_param { prob: 1 resize_mode: WARP height: 50 width: 50 interp_mode: LINEAR } }"


def test_layers_resize_the_smaller_image_and_only_if_asked(tmp_path):
    data, size = jpeg(260, 320), (50, 50)
    (tmp_path / "a.jpg").write_bytes(data)
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.jpg 3\n")
    with LmdbWriter(tmp_path / "db") as writer:
        writer.put(b"1", Datum(data=data, encoded=True, label=3).SerializeToString())
    whole, fast = (cv2.resize(decode(data, True, target), size) for target in (None, size))
    assert 0 < np.abs(whole.astype(int) - fast).mean() < 3
    for option, wanted in (("", whole), ("fast_decode: true", fast)):
        for made in (
            layer(IMAGE.format(option, tmp_path / "list.txt", "new_height: 50 new_width: 50")),
            layer(DATA.format(tmp_path / "db", option, WARP)),
        ):
            np.testing.assert_array_equal(made()[0][0].numpy(), wanted.transpose(2, 0, 1))
            made.close()


def test_without_a_resize_it_is_an_error(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(64, 64))
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.jpg 3\n")
    with pytest.raises(CaffeError, match="fast_decode needs new_height and new_width"):
        layer(IMAGE.format("fast_decode: true", tmp_path / "list.txt", ""))
    with LmdbWriter(tmp_path / "db") as writer:
        writer.put(b"1", Datum(data=jpeg(64, 64), encoded=True).SerializeToString())
    with pytest.raises(CaffeError, match=r"fast_decode needs transform_param.resize_param with WARP"):
        layer(DATA.format(tmp_path / "db", "fast_decode: true", ""))
    with pytest.raises(CaffeError, match="fast_decode is for Data and ImageData"):
        layer(DATA.format(tmp_path / "db", "fast_decode: true", "").replace('"Data"', '"AnnotatedData"'))
