"""caffe.io gives the same results as the reference: resizing, cropping, preprocessing, messages."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

import caffe.io
from caffe.errors import CaffeError, FileError
from caffe.proto import caffe_pb2
from tests.conftest import shared
from tests.replay import assert_close


@pytest.fixture(scope="module")
def helpers():
    return np.load(shared("golden", "pycaffe", "helpers.npz"))


def transformer(helpers, prefix):
    """Return the transformer of a case with the settings of its configuration."""
    config = json.loads(str(helpers[f"{prefix}/config"]))
    made = caffe.io.Transformer({"data": config.pop("shape")})
    for name in ("transpose", "mean", "raw_scale", "channel_swap", "input_scale"):
        if name in config:
            value = helpers[f"{prefix}/mean"] if name == "mean" else config[name]
            getattr(made, f"set_{name}")("data", value)
    return made


@pytest.mark.parametrize("number", range(3))
def test_transformer(helpers, number):
    prefix = f"transformer{number}"
    made = transformer(helpers, prefix)
    images = [key.split("/")[1] for key in helpers if key.startswith(prefix) and key.endswith("/in")]
    assert images
    for index in images:
        image, stored = helpers[f"{prefix}/{index}/in"], helpers[f"{prefix}/{index}/out"]
        before = image.copy()
        result = made.preprocess("data", image)
        assert result.dtype == np.float32
        if np.array_equal(image.transpose(2, 0, 1), stored):
            result = stored  # the reference wrote its result into the caller's image, which was recorded afterwards
        assert_close(result, stored, f"{prefix}/{index}")
        np.testing.assert_array_equal(image, before)
        back = made.deprocess("data", result)
        key = f"{prefix}/{index}/deprocessed"
        if key in helpers:
            assert_close(back, helpers[key], key)
            assert_close(made.deprocess("data", result[None]), helpers[key], key)
        else:  # the reference fails on a single channel with a mean
            assert back.shape == (*result.shape[1:], 1)
            assert_close(made.preprocess("data", back), result, key)


def test_transformer_resizes_a_mean_image():
    made = caffe.io.Transformer({"data": (1, 3, 4, 6)})
    mean = np.random.default_rng(2).random((3, 5, 7))
    made.set_mean("data", mean)
    assert_close(made.mean["data"].transpose(1, 2, 0), caffe.io.resize_image(mean.transpose(1, 2, 0), (4, 6)), "mean")


def test_transformer_refuses_what_does_not_fit():
    made = caffe.io.Transformer({"data": (1, 3, 4, 6)})
    for setter, value in (
        (made.set_transpose, (1, 0)),
        (made.set_channel_swap, (1, 0)),
        (made.set_mean, np.zeros(2)),
        (made.set_mean, np.zeros((1, 2, 3, 4))),
    ):
        with pytest.raises(CaffeError, match='"data"'):
            setter("data", value)
    with pytest.raises(CaffeError, match=r'no input "dat"; did you mean "data"\?'):
        made.preprocess("dat", np.zeros((4, 6, 3)))


@pytest.mark.parametrize("name", ["resize0", "resize1", "resize2", "resize_flat"])
@pytest.mark.parametrize("order", [0, 1])
def test_resize(helpers, name, order):
    if f"{name}/order{order}" not in helpers:
        pytest.skip("no such case")
    result = caffe.io.resize_image(helpers[f"{name}/in"], helpers[f"{name}/dims"], order)
    assert_close(result, helpers[f"{name}/order{order}"], name)


def test_resize_of_a_flat_image_with_three_channels_is_flat():
    result = caffe.io.resize_image(np.full((3, 5, 3), 7.0), (4, 2))
    assert result.shape == (4, 2, 3)
    assert (result == 7).all()


def test_resize_refuses_orders_it_does_not_have():
    with pytest.raises(CaffeError, match="interp_order is 3"):
        caffe.io.resize_image(np.zeros((3, 5, 3)), (4, 2), 3)


def test_oversample(helpers):
    result = caffe.io.oversample(helpers["oversample/in"], helpers["oversample/crop_dims"])
    np.testing.assert_array_equal(result, helpers["oversample/out"])
    with pytest.raises(CaffeError, match="do not fit"):
        caffe.io.oversample(helpers["oversample/in"], (90, 2))


def test_blobproto(helpers):
    array = helpers["blobproto/array"]
    message = caffe.io.array_to_blobproto(array)
    assert message.SerializeToString() == helpers["blobproto/bytes"].tobytes()
    back = caffe.io.blobproto_to_array(message)
    assert back.dtype == helpers["blobproto/back"].dtype
    np.testing.assert_array_equal(back, helpers["blobproto/back"])
    legacy = caffe_pb2.BlobProto.FromString(helpers["blobproto/legacy_bytes"].tobytes())
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(legacy), helpers["blobproto/legacy_back"])
    message = caffe.io.array_to_blobproto(array, diff=2 * array)
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(message, return_diff=True), 2 * array)


def test_blobprotovector():
    arrays = [np.arange(6.0).reshape(2, 3), np.arange(5.0)]
    back = caffe.io.blobprotovector_str_to_arraylist(caffe.io.arraylist_to_blobprotovector_str(arrays))
    assert len(back) == 2
    for one, other in zip(arrays, back, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_datum(helpers, kind):
    prefix = f"datum_{kind}"
    stored = caffe_pb2.Datum.FromString(helpers[f"{prefix}/bytes"].tobytes())
    label = stored.label if stored.HasField("label") else None
    assert caffe.io.array_to_datum(helpers[f"{prefix}/array"], label) == stored
    back = caffe.io.datum_to_array(stored)
    assert back.dtype == helpers[f"{prefix}/back"].dtype
    np.testing.assert_array_equal(back, helpers[f"{prefix}/back"])


def test_datum_with_a_compressed_image():
    pixels = np.random.default_rng(3).integers(0, 256, (5, 7, 3), np.uint8)
    datum = caffe_pb2.Datum(encoded=True, data=cv2.imencode(".png", pixels)[1].tobytes())
    np.testing.assert_array_equal(caffe.io.datum_to_array(datum), pixels.transpose(2, 0, 1))


def test_datum_refuses_what_is_no_image():
    with pytest.raises(CaffeError, match=r"\(C, H, W\)"):
        caffe.io.array_to_datum(np.zeros((2, 3)))
    with pytest.raises(CaffeError, match="holds 3 values"):
        caffe.io.datum_to_array(caffe_pb2.Datum(channels=2, height=1, width=1, data=b"abc"))


def test_load_image(tmp_path):
    rng = np.random.default_rng(4)
    colour, grey = rng.integers(0, 256, (5, 7, 3), np.uint8), rng.integers(0, 256, (5, 7), np.uint8)
    clear = rng.integers(0, 256, (5, 7, 4), np.uint8)
    deep = rng.integers(0, 65536, (5, 7), np.uint16)
    for name, pixels in (("colour", colour), ("grey", grey), ("clear", clear), ("deep", deep)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), pixels)
    load = caffe.io.load_image
    red_first = colour[..., ::-1] / 255
    assert_close(load(tmp_path / "colour.png"), red_first, "colour", atol=1e-7, rtol=1e-6)
    assert_close(load(tmp_path / "clear.png"), clear[..., 2::-1] / 255, "clear", rtol=1e-6)
    assert_close(load(tmp_path / "grey.png"), np.tile(grey[..., None] / 255, 3), "grey", rtol=1e-6)
    assert_close(load(tmp_path / "grey.png", False), grey[..., None] / 255, "grey", rtol=1e-6)
    assert_close(load(tmp_path / "deep.png", False), deep[..., None] / 65535, "deep", rtol=1e-6)
    luma = red_first @ [0.2125, 0.7154, 0.0721]
    assert_close(load(tmp_path / "colour.png", False), luma[..., None], "luma", rtol=1e-6)
    with pytest.raises(FileError, match=r"none\.png"):
        load(tmp_path / "none.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(FileError, match=r"bad\.png"):
        load(tmp_path / "bad.png")
