"""Layers that read images with maps, and layers of forks that can be built but not run."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2
from tests.data.helpers import images, layer, write_png

TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST
TEXT = 'name: "d" type: "{}" top: "x" top: "y" {} {{ source: "list.txt" batch_size: 2 {} }} transform_param {{ {} }}'
TYPES = [
    ("ImageSegData", "image_data_param"),
    ("ImageLabelmapData", "image_data_param"),
    ("DenseImageData", "dense_image_data_param"),
]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Four images. The map of each is its blue channel."""
    monkeypatch.chdir(tmp_path)
    for index, image in enumerate(images(4, (3, 9, 13))):
        write_png(tmp_path / f"{index}.png", image)
        cv2.imwrite(str(tmp_path / f"{index}_map.png"), image[0])
    (tmp_path / "list.txt").write_text("".join(f"{index}.png {index}_map.png\n" for index in range(4)))
    return tmp_path


@pytest.mark.parametrize(("kind", "field"), TYPES)
def test_maps_are_cut_and_mirrored_with_the_images(kind, field):
    caffe.set_random_seed(1)
    made = layer(TEXT.format(kind, field, "shuffle: true", "crop_size: 6 mirror: true"), TRAIN)
    assert made.shapes == [(2, 3, 6, 6), (2, 1, 6, 6)]
    seen = set()
    for _ in range(6):
        x, y = (value.numpy() for value in made())
        expected = x[:, :1] >= 128 if kind == "ImageLabelmapData" else x[:, :1]
        np.testing.assert_array_equal(y, expected)
        seen.update(image.tobytes() for image in x)
    assert len(seen) > 6
    made.close()


def test_maps_are_not_normalised():
    x, y = layer(TEXT.format(*TYPES[0], "", "mean_value: 100 scale: 0.5"), TEST)()
    np.testing.assert_array_equal(x[:, :1].numpy() * 2 + 100, y.numpy())


@pytest.mark.parametrize(("kind", "field"), TYPES)
def test_maps_of_classes_are_resized_without_new_values(kind, field):
    x, y = layer(TEXT.format(kind, field, "new_height: 18 new_width: 26", ""), TEST)()
    assert x.shape[2:] == y.shape[2:] == (18, 26)
    if kind != "ImageLabelmapData":
        np.testing.assert_array_equal(y[:, 0].numpy(), images(4, (3, 9, 13))[:2, 0].repeat(2, 1).repeat(2, 2))
    else:
        pixels = cv2.resize(images(4, (3, 9, 13))[0, 0], (26, 18))
        np.testing.assert_array_equal(y[0, 0].numpy(), pixels >= 128)


def test_small_images_are_padded_with_the_mean_and_the_ignored_label():
    options = "crop_size: 14 mean_value: 104 mean_value: 117 mean_value: 123"
    x, y = layer(TEXT.format(*TYPES[0], "ignore_label: 250 label_type: PIXEL", options), TEST)()
    assert x.shape == (2, 3, 14, 14)
    assert x[:, :, 9:].abs().max() == x[:, :, :, 13:].abs().max() == 0
    assert (y[:, :, 9:] == 250).all()
    np.testing.assert_array_equal(y[0, 0, :9, :13].numpy(), images(4, (3, 9, 13))[0, 0])


def test_images_that_are_small_on_one_axis_are_padded_there():
    x, y = layer(TEXT.format(*TYPES[0], "ignore_label: 250 label_type: PIXEL", "crop_size: 11"), TEST)()
    assert x.shape == (2, 3, 11, 11)
    assert x[:, :, 9:].abs().max() == 0
    assert (y[:, :, 9:] == 250).all()
    np.testing.assert_array_equal(y[0, 0, :9].numpy(), images(4, (3, 9, 13))[0, 0][:, 1:12])


def test_one_label_for_all_pixels_or_none(place):
    (place / "list.txt").write_text("0.png 7\n1.png 9\n")
    for extra in ("", "label_type: IMAGE"):
        y = layer(TEXT.format(*TYPES[0], extra, ""), TEST)()[1]
        assert [np.unique(each).tolist() for each in y.numpy()] == [[7], [9]]
    (place / "list.txt").write_text("0.png\n1.png\n")
    assert (layer(TEXT.format(*TYPES[0], "label_type: NONE", ""), TEST)()[1] == 255).all()


def test_label_divide():
    y = layer(TEXT.format(*TYPES[2], "label_divide: 10", ""), TEST)()[1]
    np.testing.assert_array_equal(y[0, 0].numpy(), images(4, (3, 9, 13))[0, 0] // 10)


@pytest.mark.parametrize(
    ("index", "options", "transform", "says"),
    [
        (0, "new_height: 3", "", "set both or none"),
        (0, "label_type: IMAGE", "", "expected a label of 0 to 255"),
        (0, "ignore_label: 300", "", "ignore_label is 300"),
        (1, "", "crop_size: 20", "smaller than crop_size 20"),
        (1, "", "rotation: 3", "does not change the maps"),
        (2, "mirror: true", "", "write it in transform_param"),
    ],
)
def test_mistakes(index, options, transform, says):
    with pytest.raises(CaffeError, match=says):
        layer(TEXT.format(*TYPES[index], options, transform), TEST)


def test_maps_of_another_size_and_lists_without_them(place):
    cv2.imwrite(str(place / "1_map.png"), np.zeros((4, 5), np.uint8))
    made = layer(TEXT.format(*TYPES[1], "", ""), TEST)
    with pytest.raises(CaffeError, match="is 13 x 9, but its map 5 x 4"):
        made()
    (place / "list.txt").write_text("0.png\n")
    with pytest.raises(CaffeError, match=r"list.txt:1.*expected .image.jpg map.png"):
        layer(TEXT.format(*TYPES[1], "", ""), TEST)


ABSENT = [
    (
        'type: "POSE_IMAGE_DATA" pose_image_data_param { batch_size: 2 new_height: 24 new_width: 20 '
        "out_height: 6 out_width: 5 key_point_num: 7 }",
        [(2, 3, 24, 20), (2, 7, 6, 5)],
    ),
    (
        'type: "VideoData" image_data_param { batch_size: 2 new_length: 16 use_image: true } '
        "transform_param { crop_size: 8 }",
        [(2, 3, 16, 8, 8), (2, 1, 1, 1, 1)],
    ),
    (
        'type: "VideoData" video_data_param { source: "s" batch_size: 2 new_length: 5 num_segments: 3 modality: FLOW } '
        "transform_param { crop_size: 8 multi_scale: true }",
        [(2, 30, 8, 8), (2, 1, 1, 1)],
    ),
    (
        'type: "VideoData" video_data_param { video_type: VIDEO video_file: "v" } data_param { batch_size: 2 } '
        "transform_param { resize_param { height: 8 width: 9 } }",
        [(2, 3, 8, 9), (2,)],
    ),
    (
        'type: "VideoWithVoxelTruthData" image_data_param { batch_size: 2 new_length: 4 num_truth_channels: 2 } '
        "transform_param { crop_size: 8 }",
        [(2, 3, 4, 8, 8), (2, 2, 4, 8, 8)],
    ),
    (
        'type: "VideoData" video_data_param { source: "s" batch_size: 2 new_length: 5 } '
        "transform_param { crop_size: 8 }",
        [(2, 3, 5, 8, 8), (2,)],
    ),
    (
        'type: "BoxData" data_param { batch_size: 2 side: 5 } transform_param { crop_size: 8 }',
        [(2, 3, 8, 8), (2, 175)],
    ),
    (
        'type: "SegData" seg_data_param { } transform_param { crop_height: 8 crop_width: 9 scale_ratios: 0.8 }',
        [(1, 3, 8, 9), (1, 1, 8, 9)],
    ),
    (
        'type: "ImageGtData" image_gt_data_param { batch_size: 2 resize_height: 99 crop_height: 48 crop_width: 64 '
        "field_h: 9 field_w: 9 downsample_rate: 8 output_gt_boxes: true }",
        [(2, 3, 48, 64), (2, 6, 6, 8)],
    ),
    (
        'type: "DetectionData" detection_data_param { batch_size: 2 short_size: 60 long_size: 100 '
        "field_h: 9 field_w: 9 stride: 16 output_gt_boxes: true }",
        [(2, 3, 100, 60), (2, 6, 6, 4)],
    ),
    (
        'type: "EvalData" eval_data_param { batch_size: 1 short_size: 60 long_size: 100 }',
        [(1, 3, 100, 60), (1, 8, 1, 1)],
    ),
    (
        'type: "LaneData" data_param { batch_size: 2 } annotated_data_param { seg_scales: 4 } '
        "transform_param { resize_param { height: 8 width: 12 } }",
        [(2, 3, 8, 12), (2, 5, 64, 3)],
    ),
    (
        'type: "VideoSegmentationData" image_data_param { batch_size: 2 new_length: 4 } '
        "transform_param { crop_size: 8 }",
        [(2, 3, 4, 8, 8), (2, 1, 4, 8, 8)],
    ),
]


@pytest.mark.parametrize(("text", "shapes"), ABSENT)
def test_layers_that_only_build(text, shapes):
    net = caffe.Net(
        text_format.Parse(f'layer {{ name: "d" top: "x" top: "y" {text} }}', caffe_pb2.NetParameter()), TRAIN
    )
    assert [net.blobs[name].data.shape for name in ("x", "y")] == shapes
    with pytest.raises(CaffeError, match=r'layer "d".*an "Input" layer and fill the blobs'):
        net.forward()


def test_a_size_that_the_fields_do_not_give():
    with pytest.raises(CaffeError, match="write crop_size in transform_param"):
        layer('name: "d" type: "VideoData" top: "x" data_param { batch_size: 2 }', TRAIN)
