"""Random resizing before the crop, as in NVCaffe and Intel's Caffe."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import text_format

from caffe.data.pipeline.rescaling import rescaling
from caffe.data.pipeline.transformer import BatchTransformer
from caffe.errors import DataError
from caffe.proto import caffe_pb2, weights

IMAGE = np.random.default_rng(3).integers(0, 256, (3, 40, 60), np.uint8)


def param(text: str) -> caffe_pb2.TransformationParameter:
    return text_format.Parse(text, caffe_pb2.TransformationParameter())


def sizes(text: str, image: np.ndarray = IMAGE, count: int = 60) -> set[tuple[int, int]]:
    """Return the sizes of the resized images."""
    step = rescaling(param(text))
    assert step is not None
    pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
    return {step(pixels, np.random.default_rng(seed)).shape[:2] for seed in range(count)}


def test_sizes_of_nvcaffe():
    shorter = "crop_size: 10 img_rand_resize_lower: 20 img_rand_resize_upper: 22"
    assert sizes(shorter) == {(20, 30), (21, 32), (22, 33)}  # 31.5 is rounded up
    assert sizes(shorter, IMAGE.transpose(0, 2, 1)) == {(30, 20), (32, 21), (33, 22)}
    grown = "crop_size: 10 img_rand_resize_lower: 80 img_rand_resize_upper: 80"
    assert sizes(grown) == {(40, 60)}
    assert sizes(grown + " allow_upscale: true") == {(80, 120)}
    assert sizes("crop_size: 24 img_rand_resize_lower: 20 img_rand_resize_upper: 20") == {(24, 30)}
    high = sizes("crop_size: 1 vertical_stretch_lower: 0.5 vertical_stretch_upper: 0.75")
    assert {columns for _, columns in high} == {60}
    assert {rows for rows, _ in high} == set(range(20, 31))
    square = sizes("crop_size: 1 allow_upscale: true rand_resize_ratio_lower: 1 rand_resize_ratio_upper: 2")
    assert {rows for rows, _ in square} == {40}
    assert min(columns for _, columns in square) < 50 < 70 < max(columns for _, columns in square) <= 80


def test_sizes_of_intel():
    assert sizes("crop_size: 8 random_resize_param { min_size: 20 max_size: 21 }") == {(20, 30), (21, 31)}
    assert {rows for rows, _ in sizes("crop_size: 8 random_resize_param { }", count=300)} == set(range(40, 61))
    part = "crop_size: 8 random_aspect_ratio_param { min_area_ratio: 0.1 aspect_ratio_change: 0.75 %s }"
    assert sizes(part % "") == {(8, 8)}
    assert sizes(part % "max_attempt: 0") == {(8, 12)}


def test_parts_have_the_areas_and_shapes_asked_for():
    """The values of the image increase along each axis, and so show where a crop begins and ends."""
    ramp = np.stack([np.tile(np.arange(0, 240, 4), (40, 1)), np.tile(np.arange(0, 240, 6)[:, None], (1, 60))])
    step = rescaling(
        param("crop_size: 48 random_aspect_ratio_param { min_area_ratio: 0.25 max_area_ratio: 0.5 max_attempt: 99 }")
    )
    assert step is not None
    for seed in range(20):
        pixels = step(np.ascontiguousarray(ramp.transpose(1, 2, 0)).astype(np.uint8), np.random.default_rng(seed))
        width, height = np.ptp(pixels[..., 0]) / 4, np.ptp(pixels[..., 1]) / 6
        assert 0.18 < width * height / 2400 < 0.53
        assert abs(width - height) < 2.5  # aspect_ratio_change is 1: squares


def test_a_batch_and_its_mean_image(tmp_path):
    """NVCaffe always subtracts the centre of the mean image, wherever the crop is."""
    mean = np.arange(3 * 16 * 16, dtype=np.float32).reshape(3, 16, 16)
    weights.write_mean(tmp_path / "mean.binaryproto", mean)
    text = f'crop_size: 8 img_rand_resize_lower: 20 img_rand_resize_upper: 30 mean_file: "{tmp_path}/mean.binaryproto"'
    made = BatchTransformer(param(text), caffe_pb2.TEST)
    assert made.top_shape(made.resized_shape(IMAGE.shape)) == (3, 8, 8)
    batch = made.batch(2)
    for index in range(2):
        batch.add(*made.varied(np.full((3, 40, 60), 100, np.uint8), 0, 1, 0, index))
    np.testing.assert_array_equal(batch.finish()[0], np.stack([100 - mean[:, 4:12, 4:12]] * 2))
    with pytest.raises(DataError, match="mean_file is 3 x 16 x 16, smaller than crop_size 17"):
        BatchTransformer(param(text.replace("crop_size: 8", "crop_size: 17")), caffe_pb2.TEST)


def test_small_images_grow_if_their_fork_lets_them():
    small = np.zeros((3, 6, 9), np.uint8)
    for text in (
        "allow_upscale: true img_rand_resize_lower: 8 img_rand_resize_upper: 9",
        "random_resize_param { min_size: 8 }",
    ):
        made = BatchTransformer(param("crop_size: 8 " + text), caffe_pb2.TEST)
        assert made.top_shape(made.resized_shape(small.shape)) == (3, 8, 8)
        batch = made.batch(1)
        batch.add(*made.varied(small, 0, 1, 0, 0))
        assert batch.finish()[0].shape == (1, 3, 8, 8)
    made = BatchTransformer(param("crop_size: 8 img_rand_resize_lower: 8 img_rand_resize_upper: 9"), caffe_pb2.TEST)
    with pytest.raises(DataError, match="is 3 x 6 x 9, smaller than crop_size 8"):
        made.top_shape(made.resized_shape(small.shape))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("img_rand_resize_lower: 3", "gives images different sizes; set crop_size"),
        ("crop_size: 3 img_rand_resize_lower: 3", "img_rand_resize_upper 0; set both"),
        ("crop_size: 3 vertical_stretch_lower: -1", "vertical_stretch_lower is -1, expected 0 or more"),
        ("random_resize_param { }", "random_resize_param gives images different sizes; set crop_size"),
        ("crop_size: 3 random_resize_param { min_size: 4 max_size: 3 }", "min_size 4 and max_size 3"),
        ("crop_size: 3 random_aspect_ratio_param { aspect_ratio_change: 0 }", "an aspect_ratio_change of 0"),
        (
            "crop_size: 3 random_resize_param { } resize_param { height: 3 width: 3 }",
            "random_resize_param is set beside resize_param",
        ),
    ],
)
def test_fields_that_cannot_work(text, says):
    with pytest.raises(DataError, match=says):
        BatchTransformer(param(text), caffe_pb2.TRAIN)
