"""The transformer, compared with its equation pixel by pixel."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from caffe.data.pipeline.rng import generator
from caffe.data.pipeline.transformer import BatchTransformer
from caffe.errors import DataError, FileError
from caffe.proto import caffe_pb2, weights
from tests.data.helpers import images

TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST
SHAPE = (3, 7, 11)


def transform(pixels, phase=TEST, rng=None, **options) -> tuple[np.ndarray, list]:
    batch = BatchTransformer(caffe_pb2.TransformationParameter(**options), phase).batch(len(pixels), rng)
    for image in pixels:
        batch.add(image)
    return batch.finish()[0], batch.places


def by_hand(image, place, crop, mean, scale) -> np.ndarray:
    """The equation, one pixel at a time, in float32."""
    top, left, mirrored = place
    height, width = (crop, crop) if crop else image.shape[1:]
    result = np.empty((len(image), height, width), np.float32)
    for c, h, w in itertools.product(range(len(image)), range(height), range(width)):
        value = np.float32(image[c, top + h, left + w])
        subtracted = (value - np.float32(mean[c, top + h, left + w])) * np.float32(scale)
        result[c, h, width - 1 - w if mirrored else w] = subtracted
    return result


@pytest.mark.parametrize("kind", ["uint8", "float32", "mixed"])
@pytest.mark.parametrize("mean", ["file", "one", "each", "none"])
@pytest.mark.parametrize("crop", [0, 5])
@pytest.mark.parametrize("phase", [TRAIN, TEST])
@pytest.mark.parametrize("mirror", [True, False])
def test_every_option_follows_the_equation(phase, crop, mirror, mean, kind, tmp_path):
    pixels = list(images(13, SHAPE))
    if kind != "uint8":
        first = 0 if kind == "float32" else 4
        pixels[first:] = [(image * np.float32(0.37)) for image in pixels[first:]]
    values = {"one": [3.3], "each": [1.1, 120.7, 200.3]}.get(mean, [])
    field = np.broadcast_to(np.array(values or [0], np.float32)[:, None, None], SHAPE)
    options = {"mean_value": values, "crop_size": crop, "mirror": mirror, "scale": 0.017}
    if mean == "file":
        field = (images(1, SHAPE, seed=3)[0] * np.float32(0.71)).astype(np.float32)
        weights.write_mean(tmp_path / "mean.binaryproto", field)
        options["mean_file"] = str(tmp_path / "mean.binaryproto")
    got, places = transform(pixels, phase, generator(5, 6), **options)
    assert got.dtype == np.float32
    for image, place, result in zip(pixels, places, got, strict=True):
        np.testing.assert_array_equal(result, by_hand(image, place, crop, field, 0.017))
    if mirror:
        assert {place[2] for place in places} == {True, False}, "TEST mirrors too"
    if crop and phase == TEST:
        assert {place[:2] for place in places} == {(1, 3)}
    if crop and phase == TRAIN:
        assert len({place[:2] for place in places}) > 4


def test_random_crops_reach_every_corner_and_are_fixed_by_seed_and_number():
    pixels = [np.zeros(SHAPE, np.uint8)] * 600
    _, places = transform(pixels, TRAIN, generator(1, 2), crop_size=6, mirror=True)
    assert {place[:2] for place in places} == set(itertools.product(range(2), range(6)))
    counts = [sum(place[2] for place in places), sum(place[0] for place in places)]
    assert all(240 < count < 360 for count in counts), counts
    assert transform(pixels, TRAIN, generator(1, 2), crop_size=6, mirror=True)[1] == places
    for other in (generator(1, 3), generator(2, 2), generator(1, 2, 1)):
        assert transform(pixels, TRAIN, other, crop_size=6, mirror=True)[1] != places


def test_images_of_other_sizes_share_a_batch_when_cropped():
    pixels = [images(1, (3, 9, 6))[0], images(1, (3, 5, 8))[0]]
    got, places = transform(pixels, crop_size=5)
    assert got.shape == (2, 3, 5, 5)
    assert places == [(2, 0, False), (0, 1, False)]
    np.testing.assert_array_equal(got[0], pixels[0][:, 2:7, 0:5])


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"crop_size": 8}, SHAPE, "is 3 x 7 x 11, smaller than crop_size 8"),
        ({"mean_value": [1, 2]}, SHAPE, "has 3 channels, but mean_value is given 2 times"),
        ({"mean_value": [1, 2, 3]}, (1, 7, 11), "has 1 channels"),
        ({"mean_file": "mean"}, (3, 7, 12), 'is 3 x 7 x 12, but mean_file "mean" is 3 x 7 x 11'),
    ],
)
def test_options_that_do_not_fit_the_image(options, shape, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights.write_mean("mean", np.ones(SHAPE, np.float32))
    with pytest.raises(DataError, match=message):
        transform(images(1, shape), **options)


def test_contradictory_options_are_refused():
    with pytest.raises(DataError, match="mean_file and mean_value at the same time"):
        transform([], mean_file="m", mean_value=[1])
    with pytest.raises(DataError, match="both force_color and force_gray"):
        transform([], force_color=True, force_gray=True)
    with pytest.raises(FileError, match="nowhere"):
        transform([], mean_file="nowhere")


def test_a_batch_of_two_sizes_is_refused():
    with pytest.raises(DataError, match="is 3 x 7 x 5, but the batch began with 3 x 5 x 7"):
        transform([images(1, (3, 5, 7))[0], images(1, (3, 7, 5))[0]])
