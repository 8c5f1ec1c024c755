"""Images with boxes: sampled windows, SSD's steps of transform_param, and the transformed boxes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

from caffe.data.pipeline import boxes
from caffe.data.pipeline.resizing import Resize
from caffe.data.pipeline.samplers import Samplers
from caffe.data.pipeline.targets import Boxes
from caffe.data.pipeline.transformer import BatchTransformer
from caffe.errors import DataError
from caffe.proto import caffe_pb2
from tests.data.helpers import images

ROW = np.array([[3, 0, 0.25, 0.5, 0.5, 0.75, 1], [1, 4, 0, 0, 0.1, 0.1, 0]], np.float32)


def param(text):
    return text_format.Parse(text, caffe_pb2.TransformationParameter())


def transformed(text, image, rows=ROW, phase=caffe_pb2.TRAIN, samplers="", seed=1, index=0):
    """Return an image and its boxes after transform_param, as batches of one."""
    made = BatchTransformer(param(text), phase)
    opt = made_param = param(text)
    made.labels = Boxes(opt.emit_constraint if made_param.HasField("emit_constraint") else None, made.resize)
    made.samplers = Samplers(text_format.Parse(samplers, caffe_pb2.AnnotatedDataParameter()).batch_sampler)
    batch = made.batch(1, np.random.default_rng(seed))
    batch.add(*made.varied(image, rows, seed, 0, index))
    return batch.finish()


def test_a_window_moves_cuts_and_drops_boxes():
    rows, stays = boxes.projected(ROW, np.array([0.2, 0.2, 0.4, 0.7]))
    np.testing.assert_allclose(rows[0], [3, 0, 0.25, 0.6, 1, 1, 1], atol=1e-6)
    assert stays.tolist() == [True, False]


@pytest.mark.parametrize(
    ("emit", "stays"),
    [
        ("emit_type: CENTER", False),
        ("emit_type: MIN_OVERLAP emit_overlap: 0.4", True),
        ("emit_type: MIN_OVERLAP emit_overlap: 0.5", False),
    ],
)
def test_emit_constraint(emit, stays):
    constraint = text_format.Parse(emit, caffe_pb2.EmitConstraint())
    window = np.array([0, 0, 0.36, 0.99])  # 44 % of the first box, without its centre
    assert boxes.projected(ROW[:1], window, constraint)[1].tolist() == [stays]


def test_mirrored_and_cropped_boxes_follow_the_pixels():
    image = np.zeros((3, 20, 40), np.uint8)
    image[:, 10:15, 10:20] = 200  # where the first box lies
    for seed in range(8):
        pixels, rows = transformed("crop_h: 18 crop_w: 30 mirror: true", image, ROW[:1], seed=seed)
        (box,) = rows[0, 0]
        assert box[:3].tolist() == [0, 3, 0]
        left, top, right, bottom = np.rint(box[3:7] * (30, 18, 30, 18)).astype(int)
        assert (pixels[0, :, top:bottom, left:right] == 200).all()
        assert pixels[0].sum() == 200 * 3 * (bottom - top) * (right - left)


def test_no_box_is_one_row_of_minus_one():
    assert transformed("", images(1)[0], boxes.NONE)[1].tolist() == [[[[-1] * 8]]]


@pytest.mark.parametrize(
    ("mode", "size", "expected"),
    [
        ("WARP", (30, 30), [0.25, 0.5, 0.5, 0.75]),
        ("FIT_SMALL_SIZE", (30, 60), [0.25, 0.5, 0.5, 0.75]),
        ("FIT_LARGE_SIZE_AND_PAD", (30, 30), [0.25, 7 / 30 + 0.25, 0.5, 7 / 30 + 0.375]),
    ],
)
def test_resize_modes(mode, size, expected):
    image = np.full((3, 20, 40), 90, np.uint8)
    made = Resize(
        text_format.Parse(f"height: 30 width: 30 resize_mode: {mode} pad_value: 7", caffe_pb2.ResizeParameter())
    )
    pixels = made(image.transpose(1, 2, 0), np.random.default_rng(0))
    assert pixels.shape[:2] == size == made.size(20, 40)
    assert set(np.unique(pixels)) == ({7, 90} if "PAD" in mode else {90})
    np.testing.assert_allclose(made.moved(ROW, 20, 40)[0, 2:6], expected, atol=1e-6)


def test_a_padded_image_of_the_other_shape_is_padded_left_and_right():
    made = Resize(
        text_format.Parse("height: 30 width: 30 resize_mode: FIT_LARGE_SIZE_AND_PAD", caffe_pb2.ResizeParameter())
    )
    pixels = made(np.full((40, 20, 3), 90, np.uint8), np.random.default_rng(0))
    assert (pixels[:, :7] == 0).all()
    assert (pixels[:, 22:] == 0).all()
    assert (pixels[:, 7:22] == 90).all()
    np.testing.assert_allclose(
        made.moved(ROW, 40, 20)[0, 2:6], [(7 + 15 / 4) / 30, 0.5, (7 + 7.5) / 30, 0.75], atol=1e-6
    )


def test_a_scale_stretches_the_boxes_of_a_crop():
    resize = "resize_mode: FIT_SMALL_SIZE height: 20 width: 20 height_scale: 10 width_scale: 10"
    options = f"resize_param {{ {resize} }} crop_size: 20"
    (box,) = transformed(options, np.zeros((3, 20, 20), np.uint8), ROW[:1])[1][0, 0]
    np.testing.assert_allclose(box[3:7], [0.5, 1, 1, 1.5])


def test_interpolations_are_chosen_at_random_and_repeatable():
    image = images(1, (3, 16, 16))[0]
    options = "resize_param { height: 9 width: 9 interp_mode: [LINEAR, AREA, NEAREST, CUBIC, LANCZOS4] }"
    found = {transformed(options, image, index=index)[0].tobytes() for index in range(40)}
    wanted = set()
    for method in (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4):
        pixels = cv2.resize(np.ascontiguousarray(image.transpose(1, 2, 0)), (9, 9), interpolation=method)
        wanted.add(np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32).tobytes())
    assert found == wanted


def test_expansion_fills_with_the_mean_and_shrinks_the_boxes():
    image = np.full((3, 20, 40), 90, np.uint8)
    for index in range(10):
        options = "expand_param { prob: 1 max_expand_ratio: 3 } mean_value: 10 mean_value: 20 mean_value: 30"
        pixels, rows = transformed(options, image, np.array([[1, 0, 0, 0, 1, 1, 0]], np.float32), index=index)
        height, width = pixels.shape[2:]
        left, top, right, bottom = np.rint(rows[0, 0, 0, 3:7] * (width, height, width, height)).astype(int)
        assert (bottom - top, right - left) == (20, 40)
        assert (pixels[0, 1, top:bottom, left:right] == 70).all()
        assert abs(pixels[0]).sum() == 20 * 40 * (80 + 70 + 60)


def test_a_window_of_an_expanded_image_has_the_pixels_that_cutting_the_canvas_gives():
    image = images(1, (3, 20, 40))[0]
    expand = BatchTransformer(param("expand_param { max_expand_ratio: 3 }"), caffe_pb2.TRAIN).expand
    from caffe.data.pipeline.distortion import Part

    pixels = image.transpose(1, 2, 0)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        canvas = expand.draw((20, 40), rng)
        whole = expand.part(pixels, canvas, Part(0, 0, canvas.rows, canvas.columns))
        part = Part.of((canvas.rows, canvas.columns), np.sort(rng.uniform(size=(2, 2)), 0).ravel())
        np.testing.assert_array_equal(expand.part(pixels, canvas, part), part(whole))


SAMPLER = "batch_sampler { sampler { min_scale: 0.3 max_scale: 1 min_aspect_ratio: 0.5 max_aspect_ratio: 2 } %s }"


@pytest.mark.parametrize("name", ["jaccard_overlap", "sample_coverage", "object_coverage"])
def test_sampled_windows_satisfy_their_constraint(name):
    text = SAMPLER % f"max_sample: 1 sample_constraint {{ min_{name}: 0.2 max_{name}: 0.8 }}"
    samplers = Samplers(text_format.Parse(text, caffe_pb2.AnnotatedDataParameter()).batch_sampler)
    rows = np.array([[1, 0, 0.2, 0.3, 0.7, 0.8, 0]], np.float32)
    found = 0
    for seed in range(50):
        window = samplers(rows, np.random.default_rng(seed))
        if window is None:
            continue
        found += 1
        assert (window >= 0).all()
        assert (window <= 1).all()
        width, height = window[2:] - window[:2]
        assert 0.5 - 1e-6 <= width / height <= 2 + 1e-6
        assert 0.3 - 1e-6 <= np.sqrt(width * height) <= 1
        common = np.clip(min(window[2], 0.7) - max(window[0], 0.2), 0, 1) * np.clip(
            min(window[3], 0.8) - max(window[1], 0.3), 0, 1
        )
        whole = {
            "jaccard_overlap": width * height + 0.25 - common,
            "sample_coverage": width * height,
            "object_coverage": 0.25,
        }
        assert 0.2 - 1e-5 <= common / whole[name] <= 0.8 + 1e-5
    assert found > 25


def test_each_sampler_keeps_at_most_max_sample_windows_and_tries_max_trials_times():
    never = SAMPLER % "max_trials: 30 sample_constraint { min_jaccard_overlap: 2 }"
    assert (
        Samplers(text_format.Parse(never, caffe_pb2.AnnotatedDataParameter()).batch_sampler)(
            ROW, np.random.default_rng(0)
        )
        is None
    )
    off = SAMPLER % "use_original_image: false"
    assert not Samplers(text_format.Parse(off, caffe_pb2.AnnotatedDataParameter()).batch_sampler)
    mixed = "batch_sampler { max_sample: 1 max_trials: 1 }" + SAMPLER % "max_sample: 3 max_trials: 9"
    samplers = Samplers(text_format.Parse(mixed, caffe_pb2.AnnotatedDataParameter()).batch_sampler)
    whole = sum(samplers(ROW, np.random.default_rng(seed)) is None for seed in range(400))
    assert 70 < whole < 130  # one in four


def test_distortion_changes_what_it_is_asked_to():
    image = images(1, (3, 8, 9))[0]
    bright = transformed("distort_param { brightness_prob: 1 brightness_delta: 30 }", image)[0][0] - image.astype(
        np.float32
    )
    inner = (image > 40) & (image < 215)
    assert len(np.unique(bright[inner])) == 1
    assert bright[inner][0] != 0
    order = transformed("distort_param { random_order_prob: 1 }", image, index=3)[0][0]
    assert sorted(map(bytes, order.astype(np.uint8))) == sorted(map(bytes, image))
    grey = transformed("distort_param { saturation_prob: 1 saturation_lower: 0 saturation_upper: 0 }", image)[0][0]
    np.testing.assert_array_equal(grey, np.repeat(image.max(0, keepdims=True), 3, 0))
    contrast = transformed("distort_param { contrast_prob: 1 contrast_lower: 0.5 contrast_upper: 0.5 }", image)[0][0]
    np.testing.assert_array_equal(contrast, np.rint(image * 0.5))
    hue = transformed("distort_param { hue_prob: 1 hue_delta: 18 }", image)[0][0]
    np.testing.assert_allclose(hue.max(0), image.max(0), atol=1)
    assert np.abs(hue - image).max() > 5


def test_noise_effects():
    image = images(1, (3, 40, 50))[0]
    inverse = transformed("noise_param { inverse: true }", image)[0][0]
    np.testing.assert_array_equal(inverse, 255 - image.astype(np.float32))
    grey = transformed("noise_param { decolorize: true }", image)[0][0]
    assert (grey[0] == grey[1]).all()
    assert (grey[0] == grey[2]).all()
    assert set(np.unique(transformed("noise_param { posterize: true }", image)[0])) == {32, 96, 160, 224}
    options = "noise_param { saltpepper: true saltpepper_param { fraction: 0.1 value: [1, 2, 3] } }"
    changed = (transformed(options, image)[0][0] != image).any(0)
    assert 150 < changed.sum() <= 200
    for name in ("hist_eq", "clahe", "gauss_blur", "erode", "convert_to_hsv", "convert_to_lab"):
        assert (transformed(f"noise_param {{ {name}: true }}", image)[0][0] != image).any()
    assert (transformed("noise_param { jpeg: 20 }", image)[0][0] != image).any()


@pytest.mark.parametrize("channels", [1, 3])
def test_every_step_takes_grey_and_coloured_images(channels):
    options = (
        "resize_param { height: 12 width: 10 } expand_param { max_expand_ratio: 2 } crop_h: 8 crop_w: 9 mirror: true "
        "noise_param { hist_eq: true gauss_blur: true saltpepper: true saltpepper_param { fraction: 0.1 value: 3 } }"
        "distort_param { brightness_prob: 1 brightness_delta: 3 contrast_prob: 1 contrast_lower: 1 contrast_upper: 2 }"
    )
    pixels, rows = transformed(options, images(1, (channels, 30, 20))[0], samplers=SAMPLER % "")
    assert pixels.shape == (1, channels, 8, 9)
    assert rows.shape[3] == 8


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("resize_param { height: 3 }", "height 3 and width 0; set both"),
        ("resize_param { height: 3 width: 3 prob: 0.5 }", "write prob: 1"),
        ("resize_param { height: 3 width: 3 width_scale: 3 }", "must be set together"),
        ("crop_h: 3", "crop_h is 3 and crop_w 0"),
        ("expand_param { max_expand_ratio: 0.5 }", "expected at least 1"),
        ("distort_param { contrast_prob: 1 contrast_lower: 2 contrast_upper: 1 }", "contrast is 2 ... 1"),
        ("distort_param { hue_delta: -1 }", "hue_delta is -1"),
        ("noise_param { saltpepper: true }", "saltpepper_param"),
    ],
)
def test_options_that_cannot_be_followed(text, says):
    with pytest.raises(DataError, match=says):
        BatchTransformer(param(text), caffe_pb2.TEST)


@pytest.mark.parametrize(
    ("text", "says"),
    [("distort_param { hue_prob: 1 hue_delta: 9 }", "has 1 channels"), ("crop_h: 9 crop_w: 9", "crop_h 9 x crop_w 9")],
)
def test_images_that_do_not_fit(text, says):
    with pytest.raises(DataError, match=says):
        transformed(text, images(1, (1, 5, 7))[0])


def test_a_sampler_that_cannot_be_drawn():
    for text, says in (("min_scale: 0", "scales of 0"), ("max_aspect_ratio: 0.5", "aspect ratios of 1 ... 0.5")):
        with pytest.raises(DataError, match=says):
            Samplers(
                text_format.Parse(
                    f"batch_sampler {{ sampler {{ {text} }} }}", caffe_pb2.AnnotatedDataParameter()
                ).batch_sampler
            )
