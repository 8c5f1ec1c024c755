"""Augmentation and normalization that Caffe does not have, compared with their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import text_format

from caffe.data.pipeline.rng import generator
from caffe.data.pipeline.transformer import BatchTransformer
from caffe.errors import DataError
from caffe.proto import caffe_pb2, weights
from tests.data.helpers import images


def transformer(text, phase=caffe_pb2.TRAIN):
    return BatchTransformer(text_format.Parse(text, caffe_pb2.TransformationParameter()), phase)


def run(text, pixels, labels=None, seed=1, phase=caffe_pb2.TRAIN):
    made = transformer(text, phase)
    batch = made.batch(len(pixels), generator(seed, 0))
    for index, image in enumerate(pixels):
        batch.add(*made.varied(image, 0 if labels is None else labels[index], seed, 0, index))
    return batch.finish()


def smooth(height=48, width=60):
    """A picture without edges, blue first."""
    rows, columns = np.mgrid[:height, :width]
    planes = 128 + 60 * np.sin(rows / 9), 128 + 60 * np.cos(columns / 11), 100 + rows + columns / 2
    return np.stack(planes).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "text",
    ["rotation: 20", "crop_size: 20 random_resized_crop { }", "brightness: .5 contrast: .4 saturation: .3 hue: .2",
     "noise: 9", "cutout: 12", "mixup: .4 label_count: 5"],
)  # fmt: skip
def test_a_draw_depends_on_the_seed_alone_and_is_none_in_test(text):
    pixels = np.stack([smooth()] * 4)
    first, second, other = (run(text, pixels, [0, 1, 2, 3], seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()
    if "mixup" not in text:  # of equal images
        assert (first[0] != first[1]).any()
    tested, _ = run(text, pixels, [0, 1, 2, 3], phase=caffe_pb2.TEST)
    cut = slice(14, 34), slice(20, 40)
    np.testing.assert_array_equal(tested, pixels[(..., *cut)] if "crop" in text else pixels)


def test_rotation_turns_about_the_middle():
    image = smooth()
    made = transformer("rotation: 30").augmentation(image, np.random.default_rng(0))
    degrees = np.random.default_rng(0).uniform(-30, 30)
    turn = np.deg2rad(degrees)
    for row, column in ((24, 30), (20, 25), (30, 40)):
        y, x = row - 23.5, column - 29.5  # the source of this pixel: rotated back (counter-clockwise is positive)
        from_x = np.cos(turn) * x - np.sin(turn) * y + 29.5
        from_y = np.sin(turn) * x + np.cos(turn) * y + 23.5
        near = image[:, round(from_y), round(from_x)].astype(int)
        assert np.abs(made[:, row, column].astype(int) - near).max() <= 5


def test_random_resized_crop_takes_the_areas_and_ratios_asked_for():
    rows, columns = np.mgrid[:200, :240].astype(np.float32)
    image = np.stack([rows, columns])
    made = transformer("crop_size: 16 random_resized_crop { min_area: 0.2 max_area: 0.5 min_ratio: 0.5 max_ratio: 2 }")
    areas, ratios = [], []
    for number in range(300):
        piece = made.augmentation(image, np.random.default_rng(number))
        assert piece.shape == (2, 16, 16)
        height, width = (np.ptp(piece[axis]) * 16 / 15 for axis in (0, 1))
        areas.append(height * width / (200 * 240))
        ratios.append(width / height)
    assert 0.18 < min(areas) < 0.24 < 0.45 < max(areas) < 0.52
    assert 0.45 < min(ratios) < 0.6 < 1.7 < max(ratios) < 2.2


def test_a_shape_that_never_fits_gives_the_middle():
    image = np.arange(2 * 4 * 90, dtype=np.float32).reshape(2, 4, 90)
    made = transformer("crop_size: 4 random_resized_crop { min_area: 0.9 }")
    np.testing.assert_array_equal(made.augmentation(image, np.random.default_rng(0)), image[:, :, 43:47])


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_colours_follow_their_definitions(kind):
    image = smooth().astype(kind)
    luma = np.tensordot([0.114, 0.587, 0.299], image.astype(np.float64), 1)
    for name, expected in {
        "brightness": lambda f: image * f,
        "contrast": lambda f: (image - luma.mean()) * f + luma.mean(),
        "saturation": lambda f: (image - luma) * f + luma,
    }.items():
        made = transformer(f"{name}: 0.5").augmentation(image, np.random.default_rng(3))
        wanted = expected(np.random.default_rng(3).uniform(0.5, 1.5))
        wanted = np.clip(np.rint(wanted), 0, 255) if kind == np.uint8 else wanted
        np.testing.assert_allclose(made, wanted, atol=1 if kind == np.uint8 else 0.2)
        assert made.dtype == kind
    made = transformer("hue: 0.5").augmentation(image.astype(np.float32), np.random.default_rng(3))
    np.testing.assert_allclose(np.tensordot([0.114, 0.587, 0.299], made, 1), luma, atol=1)
    chroma = [np.hypot(*((x - luma)[[0, 2]] * [[[0.493]], [[0.877]]])).mean() for x in (image, made)]
    assert chroma[0] == pytest.approx(chroma[1], rel=0.02)
    assert np.abs(made - image).max() > 20


def test_noise_has_the_deviation_asked_for():
    result, _ = run("noise: 8 scale: 0.5 mean_value: 100", np.full((3, 3, 80, 80), 100, np.uint8))
    assert result.std() == pytest.approx(4, rel=0.03)
    assert abs(result.mean()) < 0.1


def test_cutout_sets_one_square_to_the_mean():
    result, _ = run("cutout: 6 mean_value: 10", np.full((300, 3, 20, 30), 90, np.uint8))
    assert set(np.unique(result)) == {0, 80}
    cut = (result == 0).all(axis=1)
    assert ((result == 0).any(axis=1) == cut).all()
    assert cut.sum(axis=(1, 2)).max() == 36
    assert cut.sum(axis=(1, 2)).min() >= 9
    assert cut.any(axis=0).all(), "every place is reached"
    # a mask of 6 pixels has its centre at the fourth: at a border, 3 pixels before it or 4 from it on remain
    for across in (2, 1):
        lines = cut.any(axis=across)
        assert [lines.sum(axis=1)[lines[:, end]].min() for end in (0, -1)] == [3, 4]


def test_mixup_mixes_images_and_labels_alike():
    pixels = np.zeros((6, 6, 4, 4), np.uint8)
    for index in range(6):
        pixels[index, index] = 200
    result, labels = run("mixup: 1 label_count: 6 scale: 0.005", pixels, range(6))
    assert labels.shape == (6, 6)
    np.testing.assert_allclose(result[:, :, 2, 2], labels, atol=1e-6)
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
    assert ((labels > 0.01) & (labels < 0.99)).any()
    tested, whole = run("mixup: 1 label_count: 6", pixels, range(6), phase=caffe_pb2.TEST)
    np.testing.assert_array_equal(whole, np.eye(6))
    np.testing.assert_array_equal(tested, pixels)


def test_standard_deviation_for_channels_and_pixels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = images(4, (3, 5, 7))
    result, _ = run("std_value: 2 std_value: 3 std_value: 4 mean_value: 50 scale: 10", pixels)
    std = np.array([2, 3, 4], np.float32).reshape(3, 1, 1)
    np.testing.assert_allclose(result, (pixels - np.float32(50)) / std * 10, rtol=1e-6)
    std = np.random.default_rng(0).uniform(1, 9, (3, 5, 7)).astype(np.float32)
    weights.write_mean("std.binaryproto", std)
    result, _ = run('std_file: "std.binaryproto" crop_size: 3', pixels, phase=caffe_pb2.TEST)
    np.testing.assert_allclose(result, (pixels / std)[:, :, 1:4, 2:5], rtol=1e-6)


@pytest.mark.parametrize("rows", [4, 105])
def test_whitening_multiplies_the_centred_image(rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels, matrix = images(4, (3, 5, 7)), np.random.default_rng(0).normal(size=(rows, 3, 5, 7)).astype(np.float32)
    weights.write_mean("w.binaryproto", matrix)
    result, _ = run('whitening_file: "w.binaryproto" mean_value: 50 scale: 0.5', pixels)
    expected = (pixels.reshape(4, -1) - 50.0) @ matrix.reshape(rows, -1).T * 0.5
    assert result.shape == ((4, 3, 5, 7) if rows == 105 else (4, 4, 1, 1))
    np.testing.assert_allclose(result.reshape(4, -1), expected, rtol=1e-4, atol=1e-2)
    with pytest.raises(DataError, match="3 x 5 x 7"):
        run('whitening_file: "w.binaryproto"', images(1, (3, 5, 6)))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("random_resized_crop { }", "needs crop_size"),
        ("crop_size: 4 random_resized_crop { min_area: 0 }", "areas within"),
        ("crop_size: 4 random_resized_crop { min_ratio: 3 max_ratio: 2 }", "ratios"),
        ('crop_size: 4 random_resized_crop { } mean_file: "x"', "mean_value"),
        ("rotation: -3", "rotation is -3"),
        ("hue: 0.7", "0 to 0.5"),
        ("mixup: 1", "label_count"),
        ("label_count: 5", "mixup"),
        ("std_value: 0", "above 0"),
        ('std_value: 1 std_file: "x"', "std_file and std_value"),
        ('cutout: 1 whitening_file: "x"', "cutout"),
    ],
)
@pytest.mark.parametrize("phase", [caffe_pb2.TRAIN, caffe_pb2.TEST])
def test_options_that_contradict_each_other(text, part, phase, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights.write_mean("x", np.ones((2, 3, 4), np.float32))
    with pytest.raises(DataError, match=part):
        transformer(text, phase)


def test_images_that_do_not_fit():
    with pytest.raises(DataError, match="smaller than crop_size 6"):
        run("crop_size: 6 random_resized_crop { }", images(1), phase=caffe_pb2.TEST)
    with pytest.raises(DataError, match="1 channels, but saturation"):
        run("saturation: 0.5", images(1, (1, 5, 7)))
    with pytest.raises(DataError, match="label 5, but label_count is 5"):
        run("mixup: 1 label_count: 5", images(1), [5])
