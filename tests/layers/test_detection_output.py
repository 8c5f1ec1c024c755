"""DetectionOutput: its rows, compared with plain loops; the files that it writes; nets that contain it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import caffe
from caffe.errors import CaffeError, LayerError
from caffe.layers.detection.results import in_pixels
from caffe.proto import caffe_pb2
from tests.layers.alone import alone
from tests.layers.build import assert_rejected
from tests.layers.test_multibox import Plain, batch, overlap

CORNERS = np.array([[0.1, 0.1, 0.3, 0.3], [0.1, 0.1, 0.32, 0.3], [0.6, 0.6, 0.9, 0.9]], np.float32)
PRIORS = np.stack([CORNERS, np.ones_like(CORNERS)]).reshape(1, 2, 12)
CONF = np.array([[[0.1, 0.9, 0.0], [0.15, 0.8, 0.05], [0.2, 0.3, 0.5]]], np.float32)
SHAPES = [(1, 12), (1, 9), PRIORS.shape]


def rows(options: str, conf: np.ndarray = CONF, loc: np.ndarray | None = None) -> np.ndarray:
    """Return the rows for priors of which two overlap by 0.91 and one is separate, without offsets."""
    images = len(conf)
    loc = np.zeros((images, 12), np.float32) if loc is None else loc
    bottoms = [loc, conf.reshape(images, -1), PRIORS]
    layer = alone(
        "DetectionOutput", [x.shape for x in bottoms], f"detection_output_param {{ num_classes: 3 {options} }}"
    )
    top = layer(*map(torch.from_numpy, bottoms))
    assert top.shape[:2] == (1, 1)
    return top[0, 0].numpy()


def test_rows_by_hand():
    found = rows("confidence_threshold: 0.1 nms_param { nms_threshold: 0.5 }")
    expected = [[0, 1, 0.9, *CORNERS[0]], [0, 1, 0.3, *CORNERS[2]], [0, 2, 0.5, *CORNERS[2]]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert len(rows("confidence_threshold: 0.1 nms_param { nms_threshold: 0.95 }")) == 4
    np.testing.assert_allclose(rows("confidence_threshold: 0.1 keep_top_k: 2")[:, 1:3], [[1, 0.9], [2, 0.5]])
    np.testing.assert_allclose(rows("nms_param { top_k: 1 }")[:, 1:3], [[1, 0.9], [2, 0.5]])
    assert len(rows("background_label_id: -1 nms_param { nms_threshold: 1 }")) == 9
    assert len(rows("keep_top_k: 0")) == 1


def test_no_detection_is_a_row_for_each_image():
    found = rows("confidence_threshold: 0.95", CONF.repeat(2, 0))
    np.testing.assert_array_equal(found, [[0, *[-1] * 6], [1, *[-1] * 6]])


@pytest.mark.parametrize("eta", [1.0, 0.7])
@pytest.mark.parametrize("code", ["CORNER", "CENTER_SIZE", "CORNER_SIZE"])
@pytest.mark.parametrize("encoded", [True, False])
def test_rows_are_those_of_the_definition(code, encoded, eta):
    plain = Plain(code=code, variance_in_target=encoded)
    loc, conf, priors, _ = batch(3)
    options = f"""detection_output_param {{ num_classes: 3 code_type: {code} confidence_threshold: 0.2 keep_top_k: 9
        variance_encoded_in_target: {str(encoded).lower()} nms_param {{ nms_threshold: 0.6 top_k: 12 eta: {eta} }} }}"""
    conf = torch.from_numpy(conf.reshape(4, -1, 3)).softmax(-1)
    layer = alone("DetectionOutput", [loc.shape, (4, conf[0].numel()), priors.shape], options)
    found = layer(torch.from_numpy(loc), conf.reshape(4, -1), torch.from_numpy(priors))[0, 0].numpy()
    boxes, variances = priors.reshape(2, -1, 4)
    expected = []
    for n in range(4):
        own = [plain.decoded(*each) for each in zip(loc[n].reshape(-1, 4), boxes, variances, strict=True)]
        image = []
        for label in (1, 2):
            score, kept, limit = conf[n, :, label].numpy(), [], 0.6
            for i in sorted((i for i in range(len(own)) if score[i] > 0.2), key=lambda i: -score[i])[:12]:
                if all(overlap(own[i], own[k]) <= limit for k in kept):
                    kept.append(i)
                    limit = limit * eta if limit > 0.5 else limit
            image += [[n, label, score[i], *own[i]] for i in kept]
        best = sorted(image, key=lambda row: -row[2])[:9]
        expected += sorted(best, key=lambda row: (row[1], -row[2]))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_each_class_can_have_offsets_of_its_own():
    loc = np.zeros((1, 3, 3, 4), np.float32)
    loc[:, :, 2] = 0.05
    bottoms = [loc.reshape(1, -1), CONF.reshape(1, -1), PRIORS]
    options = "detection_output_param { num_classes: 3 share_location: false confidence_threshold: 0.4 }"
    found = alone("DetectionOutput", [x.shape for x in bottoms], options)(*map(torch.from_numpy, bottoms))[0, 0]
    np.testing.assert_allclose(found[:, 3:], [CORNERS[0], CORNERS[2] + 0.05], rtol=1e-6)


def test_the_two_stages_of_refinedet():
    """The first stage moves the priors; its objectness excludes the second prior."""
    first = np.full((1, 12), 0.01, np.float32)
    objectness = np.array([[0.5, 0.5, 0.5, 0.5, 0.999, 0.001]], np.float32)
    bottoms = [np.full((1, 12), 0.02, np.float32), CONF.reshape(1, -1), PRIORS, objectness, first]
    options = "detection_output_param { num_classes: 3 confidence_threshold: 0.1 }"
    found = alone("DetectionOutput", [x.shape for x in bottoms], options)(*map(torch.from_numpy, bottoms))[0, 0]
    np.testing.assert_allclose(found, [[0, 1, 0.9, *(CORNERS[0] + 0.03)]], rtol=1e-6)


NET = """
layer { name: "in" type: "Input" top: "loc" top: "conf" top: "prior"
        input_param { shape { dim: [1, 12] } shape { dim: [1, 9] } shape { dim: [1, 2, 12] } } }
layer { name: "out" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "prior" top: "out"
        detection_output_param { num_classes: 3 confidence_threshold: 0.1 %s } }
layer { name: "twice" type: "Power" bottom: "out" top: "twice" power_param { scale: 2 } }
"""


def net_of(tmp_path: Path, text: str) -> caffe.Net:
    (tmp_path / "net.prototxt").write_text(text)
    net = caffe.Net(tmp_path / "net.prototxt", caffe.TEST)
    net.blobs["conf"].data[...] = CONF.reshape(1, -1)
    net.blobs["prior"].data[...] = PRIORS
    return net


@pytest.mark.parametrize("way", ["stepwise", "optimize"])
def test_the_number_of_rows_follows_the_values(tmp_path, way):
    net = net_of(tmp_path, NET % "")
    assert net.blobs["out"].shape == (1, 1, 1, 7)
    if way == "optimize":
        net.optimize(keep=["out"])
    for low, count in ((0.0, 3), (0.85, 1), (0.0, 3)):
        conf = CONF.reshape(1, -1).copy()
        conf[conf < low] = 0
        net.blobs["conf"].data[...] = conf
        top = net.forward()["twice"]
        assert top.shape == net.blobs["out"].data.shape == (1, 1, count, 7)
        np.testing.assert_array_equal(top, 2 * net.blobs["out"].data)


SAVED = """save_output_param {{ output_directory: "{folder}/results" output_name_prefix: "p_" output_format: "{kind}"
    label_map_file: "{folder}/labels" name_size_file: "{folder}/sizes" {more} }}"""


def saving(folder: Path, kind: str, more: str = "") -> str:
    (folder / "labels").write_text('item { name: "cat" label: 1 } item { name: "dog" label: 2 }')
    (folder / "sizes").write_text("one 100 200\n007 50 50\n")
    return NET % SAVED.format(folder=folder, kind=kind, more=more)


@pytest.mark.parametrize("way", ["stepwise", "optimize"])
def test_files_of_each_format(tmp_path, way):
    wanted = {
        "VOC": {
            "p_cat.txt": "one 0.9 20 10 60 30\none 0.3 120 60 180 90\n007 0.9 5 5 15 15\n007 0.3 30 30 45 45\n",
            "p_dog.txt": "one 0.5 120 60 180 90\n007 0.5 30 30 45 45\n",
        },
        "ILSVRC": {
            "p_.txt": "one 1 0.9 20 10 60 30\none 1 0.3 120 60 180 90\none 2 0.5 120 60 180 90\n"
            "007 1 0.9 5 5 15 15\n007 1 0.3 30 30 45 45\n007 2 0.5 30 30 45 45\n",
        },
    }
    for kind, files in wanted.items():
        (tmp_path / kind).mkdir()
        net = net_of(tmp_path, saving(tmp_path / kind, kind))
        getattr(net, way)()
        net.forward()
        assert not (tmp_path / kind / "results").exists()
        net.forward()
        made = {path.name: path.read_text() for path in (tmp_path / kind / "results").iterdir()}
        assert made == files


def test_coco_file_of_the_images_counted(tmp_path):
    net = net_of(tmp_path, saving(tmp_path, "COCO", "num_test_image: 1"))
    for _ in range(2):
        net.forward()
        made = json.loads((tmp_path / "results" / "p_.json").read_text())
        assert [one["category_id"] for one in made] == ["cat", "cat", "dog"]
        assert made[0] == {"image_id": "one", "category_id": "cat", "bbox": [20, 10, 40, 20], "score": 0.899999976}


def resized(mode: str, **more: int) -> object:
    return caffe_pb2.ResizeParameter(resize_mode=mode, height=100, width=100, **more)


def test_boxes_in_pixels_of_the_image_that_was_resized():
    box = torch.tensor([0.5, 0.25, 1.25, 0.5])
    assert in_pixels(box, (100, 200)).tolist() == [100, 25, 200, 50]
    assert in_pixels(box, (100, 200), resized("WARP")).tolist() == [100, 25, 200, 50]
    # 200 x 100 becomes 100 x 50 with 25 rows above it and below
    assert in_pixels(box, (100, 200), resized("FIT_LARGE_SIZE_AND_PAD")).tolist() == [100, 0, 200, 50]
    assert in_pixels(box[[1, 0, 3, 2]], (200, 100), resized("FIT_LARGE_SIZE_AND_PAD")).tolist() == [0, 100, 50, 200]
    assert in_pixels(box, (60, 200), resized("FIT_SMALL_SIZE")).tolist() == [100, 15, 200, 30]
    crop = resized("FIT_SMALL_SIZE", height_scale=80, width_scale=160)
    assert in_pixels(box, (30, 180), crop).tolist() == [80, 20, 180, 30]


def test_a_directory_alone_writes_nothing_and_warns(tmp_path, caplog):
    net = net_of(tmp_path, NET % f'visualize: true save_output_param {{ output_directory: "{tmp_path}/out" }}')
    net.forward()
    assert not (tmp_path / "out").exists()
    assert "writes no files, since save_output_param has no label_map_file and no name_size_file" in caplog.text
    assert "visualize does not open a window" in caplog.text


@pytest.mark.parametrize(
    ("kind", "more", "sizes", "says"),
    [
        ("TXT", "", None, 'output_format is "TXT"'),
        ("VOC", "num_test_image: 3", None, "num_test_image is 3, expected 1 to 2"),
        ("VOC", "resize_param { }", None, "resize_param has no height and width"),
        ("VOC", "", "one 5\n", "expected a name, the height and the width"),
        ("VOC", "", "\n", "is empty"),
    ],
)
def test_wrong_files(tmp_path, kind, more, sizes, says):
    text = saving(tmp_path, kind, more)
    if sizes is not None:
        (tmp_path / "sizes").write_text(sizes)
    with pytest.raises(LayerError, match=says):
        net_of(tmp_path, text)


def test_missing_files(tmp_path):
    text = saving(tmp_path, "VOC")
    (tmp_path / "labels").write_text('item { name: "cat" label: 1 }')
    with pytest.raises(LayerError, match="has no name for label"):
        net_of(tmp_path, text)
    (tmp_path / "sizes").unlink()
    net = net_of(tmp_path, text)  # a published net can be built without its files
    with pytest.raises(CaffeError, match="cannot open the name_size_file"):
        net.forward()


def test_the_size_of_the_images_for_visualize_changes_nothing(tmp_path):
    text = saving(tmp_path, "VOC").replace(
        "detection_output_param", "transform_param { resize_param { } } detection_output_param"
    )
    assert net_of(tmp_path, text).forward()["twice"].shape[3] == 7


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("", "needs num_classes"),
        ("num_classes: 4", "expected 4 numbers an item for each"),
        ("num_classes: 3 share_location: false", "expected 12 numbers an item for each"),
        ("num_classes: 3 nms_param { nms_threshold: -1 }", "nms_threshold is -1"),
        ("num_classes: 3 nms_param { eta: 0 }", "eta is 0"),
        ("num_classes: 3 nms_param { eta: 2 }", "eta is 2"),
        ("num_classes: 3 use_polygon: true", "use_polygon"),
    ],
)
def test_wrong_options(options, says):
    assert_rejected("DetectionOutput", f"detection_output_param {{ {options} }}", *SHAPES, says=says)


def test_polygons_follow_the_boxes():
    priors = np.array([[[0.1, 0.2, 0.5, 0.6]], [[0.1, 0.1, 0.2, 0.2]]], np.float32).reshape(1, 2, 4)
    loc = np.array([[0, 0, 0, 0, 1, 0, 0, 1, -1, 0, 0, -1]], np.float32)
    options = "num_classes: 2 use_polygon: true code_type: CENTER_SIZE confidence_threshold: 0.5"
    bottoms = [loc, np.array([[0.1, 0.9]], np.float32), priors]
    layer = alone("DetectionOutput", [x.shape for x in bottoms], f"detection_output_param {{ {options} }}")
    top = layer(*map(torch.from_numpy, bottoms)).numpy()
    corners = [0.14, 0.2, 0.5, 0.24, 0.46, 0.6, 0.1, 0.56]
    np.testing.assert_allclose(top, [[[[0, 1, 0.9, 0.1, 0.2, 0.5, 0.6, *corners]]]], rtol=1e-5)
    options = "detection_output_param { num_classes: 2 use_polygon: true }"
    assert_rejected("DetectionOutput", options, *(x.shape for x in bottoms), says="for code_type: CENTER_SIZE")
