"""YOLO's layers, compared with loops over cells and boxes, and the errors for invalid options."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from caffe.errors import LayerError
from caffe.layers.yolo.losses import farness
from tests.layers.build import apply, assert_rejected, build
from tests.layers.cases.yolo import BIASES, GRID, ONE, REGION, TRUTH, YOLO3

ANCHORS = [(9, 12), (14, 10), (20, 16)]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def iou(a, b):
    """Return the intersection over union of two boxes, each given by centre and size."""
    w, h = (
        min(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2) - max(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2) for i in (0, 1)
    )
    common = max(w, 0) * max(h, 0)
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def rows_of(image):
    """Return the boxes of an image up to the first row of zeros."""
    return image[: int(np.argmax(image[:, 3] == 0))]


def box_of(t, j, i, width, height, anchor, scale=1.0):
    return (
        (i + sigmoid(t[0])) / width,
        (j + sigmoid(t[1])) / height,
        np.exp(t[2]) * anchor[0] / (width * scale),
        np.exp(t[3]) * anchor[1] / (height * scale),
    )


def test_the_loss_of_yolo3_by_loops():
    x = np.random.default_rng(1).normal(size=(2, 16, 3, 4))
    n, _, height, width = x.shape
    cells = x.reshape(n, 2, 8, height, width)
    delta = np.zeros_like(cells)
    for b, a, j, i in np.ndindex(n, 2, height, width):
        box = box_of(cells[b, a, :, j, i], j, i, width, height, ANCHORS[1 + a], 8)
        if max(iou(box, row[1:]) for row in rows_of(TRUTH[b])) <= 0.4:
            delta[b, a, 4, j, i] = sigmoid(cells[b, a, 4, j, i])
    for b in range(n):
        for label, *box in rows_of(TRUTH[b]):
            i, j = int(box[0] * width), int(box[1] * height)
            shape = (0, 0, box[2] * width * 8, box[3] * height * 8)
            best = int(np.argmax([iou((0, 0, *anchor), shape) for anchor in ANCHORS]))
            if best == 0:
                continue
            t, d, k = cells[b, best - 1, :, j, i], delta[b, best - 1, :, j, i], 5 * (2 - box[2] * box[3])
            d[:2] = k * (sigmoid(t[0]) - (box[0] * width - i)), k * (sigmoid(t[1]) - (box[1] * height - j))
            d[2:4] = k * (t[2:4] - np.log(np.array(shape[2:]) / ANCHORS[best]))
            d[4] = sigmoid(t[4]) - 1
            if d[5]:
                d[5 + int(label)] = sigmoid(t[5 + int(label)]) - 1
            else:
                d[5:] = sigmoid(t[5:]) - np.eye(3)[int(label)]
    layer = build("Yolov3", f"yolov3_param {{ {YOLO3} }}", x.shape, TRUTH.shape)
    bottom = torch.tensor(x, requires_grad=True)
    loss = layer(bottom, torch.tensor(TRUTH))
    assert loss.item() == pytest.approx((delta**2).sum() / n, rel=1e-6)
    loss.backward()
    np.testing.assert_allclose(bottom.grad, delta.reshape(x.shape) / n, rtol=1e-6, atol=1e-9)


def test_what_diou_and_ciou_take_from_the_overlap_and_its_slope():
    box = torch.tensor([[0.4, 0.5, 0.3, 0.2], [0.2, 0.2, 0.1, 0.3], [0.5, 0.5, 0.8, 0.1]], dtype=torch.float64)
    truth = torch.tensor([[0.5, 0.45, 0.2, 0.25], [0.7, 0.8, 0.2, 0.2], [0.45, 0.6, 0.3, 0.5]], dtype=torch.float64)
    far, slope = farness(box, truth, False)
    assert far[0].item() == pytest.approx(
        (0.1**2 + 0.05**2) / (0.35**2 + 0.275**2)
    )  # the hull: 0.25 ... 0.6, 0.325 ... 0.6
    for column in range(4):
        step = torch.zeros(4, dtype=torch.float64)
        step[column] = 1e-6
        numeric = (farness(box + step, truth, False)[0] - farness(box - step, truth, False)[0]) / 2e-6
        torch.testing.assert_close(slope[:, column : column + 1], numeric, rtol=1e-5, atol=1e-8)
    more, steeper = (a - b for a, b in zip(farness(box, truth, True), (far, slope), strict=True))
    turn = math.atan(0.8) - math.atan(1.5)
    v = 4 / math.pi**2 * turn**2
    weight = v / (1 - iou(box[0].tolist(), truth[0].tolist()) + v)
    assert more[0].item() == pytest.approx(weight * v, rel=1e-5)
    expected = weight * 8 / math.pi**2 * turn * np.array([0, 0, -0.2, 0.3])
    np.testing.assert_allclose(steeper[0], expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("kind", ["DIOU", "CIOU"])
def test_the_iou_losses_of_yolo3_train(kind):
    torch.manual_seed(1)
    layer = build(
        "Yolov3", f"yolov3_param {{ {YOLO3} iou_loss: {kind} iou_normalizer: 1 }}", (2, 16, 3, 4), TRUTH.shape
    )
    x, losses = torch.randn(2, 16, 3, 4, dtype=torch.float64), []
    for _ in range(60):
        x = x.detach().requires_grad_()
        loss = layer(x, torch.tensor(TRUTH))
        loss.backward()
        losses.append(loss.item())
        x = x - 0.5 * x.grad
    assert losses[-1] < 0.5 * losses[0]


def test_the_loss_of_yolo2_by_loops():
    anchors = [(0.8, 1.1), (2.3, 1.9)]
    x = np.random.default_rng(2).normal(size=(2, 16, 3, 4))
    n, _, height, width = x.shape
    cells = x.reshape(n, 2, 8, height, width)
    delta = np.zeros_like(cells)
    for b, a, j, i in np.ndindex(n, 2, height, width):
        t, d = cells[b, a, :, j, i], delta[b, a, :, j, i]
        s = sigmoid(t[[0, 1, 4]])
        box = box_of(t, j, i, width, height, anchors[a])
        if max(iou(box, row[1:]) for row in rows_of(TRUTH[b])) <= 0.3:
            d[4] = s[2] ** 2 * (1 - s[2])
        d[:2] = 0.01 * (s[:2] - 0.5) * s[:2] * (1 - s[:2])
        d[2:4] = 0.01 * t[2:4]
    for b in range(n):
        for label, *box in rows_of(TRUTH[b]):
            i, j = int(box[0] * width), int(box[1] * height)
            boxes = [box_of(cells[b, a, :, j, i], j, i, width, height, anchors[a]) for a in (0, 1)]
            best = int(np.argmax([iou((0, 0, *one[2:]), (0, 0, *box[2:])) for one in boxes]))
            t, d = cells[b, best, :, j, i], delta[b, best, :, j, i]
            s = sigmoid(t[[0, 1, 4]])
            d[:2] = 2 * (s[:2] - (box[0] * width - i, box[1] * height - j)) * s[:2] * (1 - s[:2])
            d[2:4] = 2 * (t[2:4] - np.log(np.array(box[2:]) * (width, height) / anchors[best]))
            d[4] = 5 * (s[2] - iou(boxes[best], box)) * s[2] * (1 - s[2])
            d[5:] = np.exp(t[5:]) / np.exp(t[5:]).sum() - np.eye(3)[int(label)]
    layer = build("RegionLoss", f"region_loss_param {{ {REGION} rescore: 1 thresh: 0.3 }}", x.shape, TRUTH.shape)
    loss = layer(torch.tensor(x), torch.tensor(TRUTH))
    assert loss.item() == pytest.approx((delta**2).sum() / n, rel=1e-6)
    layer.runs.fill_(6400)  # the net has seen 12800 images
    assert layer(torch.tensor(x), torch.tensor(TRUTH)) < loss


def test_detections_of_yolo3_by_loops():
    x = np.random.default_rng(3).normal(size=(2, 16, 3, 4)) * 2
    cells = x.reshape(2, 2, 8, 3, 4)
    expected = []
    for b in range(2):
        found = []
        for a, j, i, c in np.ndindex(2, 3, 4, 3):
            t = cells[b, a, :, j, i]
            score = sigmoid(t[4]) * sigmoid(t[5 + c])
            if score > 0.3:
                found.append((score, c, box_of(t, j, i, 4, 3, ANCHORS[1 + a], 8)))
        kept = []
        for one in sorted(found, key=lambda each: -each[0]):
            if all(iou(one[2], other[2]) < 0.45 for other in kept):
                kept.append(one)
        for score, c, (cx, cy, w, h) in kept:
            expected.append([b, c + 1, score, cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
    options = (
        "num_classes: 3 num_box: 2 biases: [9, 12, 14, 10, 20, 16] mask: [1, 2] anchors_scale: 8 mask_group_num: 1"
    )
    y = apply("Yolov3DetectionOutput", f"yolov3_detection_output_param {{ {options} confidence_threshold: 0.3 }}", x)
    np.testing.assert_allclose(y[0, 0], expected, rtol=1e-6)
    none = apply("Yolov3DetectionOutput", f"yolov3_detection_output_param {{ {options} confidence_threshold: 2 }}", x)
    assert none[0, 0].tolist() == [[0, *[-1] * 6], [1, *[-1] * 6]]


def test_detections_of_yolo2():
    x = np.zeros((1, 7, 1, 2))
    x[0, 4], x[0, 5:, 0] = [[2.0, -9]], [[0.0, 0], [3, 0]]
    options = "num_classes: 2 num_box: 1 biases: 0.5 biases: 0.25 confidence_threshold: 0.3"
    y = apply("YoloDetectionOutput", f"yolo_detection_output_param {{ {options} }}", x)[0, 0]
    np.testing.assert_allclose(y, [[0, 2, sigmoid(2) * sigmoid(3), 0.125, 0.375, 0.375, 0.625]], rtol=1e-6)


def test_the_loss_of_yolo1_by_hand():
    x = np.full((1, 4, 7), 0.5)  # 4 cells, 2 classes, 1 box
    truth = np.zeros((1, 28))
    truth[0, 4 + 3], truth[0, 8 + 3], truth[0, 12 + 12 :] = 1, 1, (0.75, 0.75, 0.25, 0.25)
    options = "side: 2 num_class: 2 num_object: 1 constriant: true"
    loss = apply("DetectionLoss", f"detection_loss_param {{ {options} }}", x.reshape(1, 28), truth)
    assert loss.item() == pytest.approx(0.25 * 2 + 0.25 + 0.5 * 0.25)  # the box is right
    moved = truth.copy()
    moved[0, -4:] = (0.7, 0.75, 0.25, 0.36)
    loss = apply("DetectionLoss", f"detection_loss_param {{ {options} }}", x.reshape(1, 28), moved)
    assert loss.item() == pytest.approx(0.25 * 2 + 0.25 + 0.5 * 0.25 + 5 * (0.1**2 + 0.1**2))


def test_what_is_right_of_yolo1_by_hand():
    x = np.zeros((1, 7, 4))
    x[0, :2, 0], x[0, 2], x[0, 3:, :] = (0.9, 0.1), (0.9, 0.8, 0.7, 0.6), 0.5
    x[0, :2, 1:] = [[0.2] * 3, [0.8] * 3]
    truth = np.zeros((1, 28))
    truth[0, 4:8], truth[0, 8:12] = (1, 0, 0, 1), (0, -1, -1, 1)
    truth[0, 12:].reshape(4, 4)[[0, 3]] = (0.25, 0.25, 0.25, 0.25), (0.75, 0.75, 0.25, 0.2)
    y = apply("EvalDetection", "eval_detection_param { side: 2 num_class: 2 num_object: 1 }", x.reshape(1, 28), truth)
    expected = [1, 1, 0, 0.81, 1, 0, 1, 0.64, 0, 1, 1, 0.56, 0, 1, 1, 0.48, 1, 0]
    np.testing.assert_allclose(y[0], expected, rtol=1e-12)


def test_masks_by_hand():
    x, truth = np.array([[[[0.9, 0.1, 0.8]], [[0, 0, 0]]]]), np.array([[[[1.0, 1, 0]], [[1, 0, 0]]]])
    y = apply("SegmentationEvaluate", "segmentation_evaluate_param { num_classes: 2 threshold: 0.5 }", x, truth)
    np.testing.assert_allclose(y.flatten(), [1 / 3, 0])


def test_errors_for_invalid_input():
    shapes = (2, 16, 3, 4), (2, 4, 5)
    assert_rejected("Yolov3", f"yolov3_param {{ {YOLO3} }}", (2, 18, 3, 4), shapes[1], says="expected (N, 16, H, W)")
    assert_rejected("Yolov3", f"yolov3_param {{ {YOLO3} mask: 5 }}", *shapes, says="3 values of mask, expected 2")
    assert_rejected("RegionLoss", f"region_loss_param {{ {REGION} biases: 1 }}", *shapes, says="5 values of biases")
    assert_rejected(
        "RegionLoss", f"region_loss_param {{ {REGION} }}", shapes[0], (2, 7), says="rows [label, x, y, w, h]"
    )
    assert_rejected(
        "DetectionLoss", f"detection_loss_param {{ {ONE} }}", (2, 100), (2, 63), says="expected 108 elements"
    )
    assert_rejected("YoloSeg", "", (2, 3), (2, 4), says="expected as many elements")
    assert_rejected("SegmentationEvaluate", "", (1, 1, 2, 2), (1, 1, 2, 2), says="needs num_classes")
    options = f"yolo_detection_output_param {{ num_classes: 3 num_box: 2 {BIASES} coords: 5 }}"
    assert_rejected("YoloDetectionOutput", options, shapes[0], says="coords is 5, expected 4")
    options = "yolov3_detection_output_param { num_classes: 3 num_box: 2 }"
    assert_rejected("Yolov3DetectionOutput", options, shapes[0], says="mask_group_num 2 and 0 values of anchors_scale")


@pytest.mark.parametrize(("kind", "options"), [("Yolov3", YOLO3), ("RegionLoss", REGION)])
def test_a_label_that_is_no_class_is_an_error(kind, options):
    truth = TRUTH.copy()
    truth[1, 0, 0] = 3
    name = "yolov3_param" if kind == "Yolov3" else "region_loss_param"
    with pytest.raises(LayerError, match="holds the label 3, expected 0 to 2"):
        apply(kind, f"{name} {{ {options} }}", np.zeros((2, 16, 3, 4)), truth)
    grid = GRID.reshape(2, -1).copy()
    grid[0, 18 + 4] = 7
    with pytest.raises(LayerError, match="holds the label 7, expected 0 to 1"):
        apply("DetectionLoss", f"detection_loss_param {{ {ONE} }}", np.zeros((2, 108)), grid)


@pytest.mark.parametrize(("kind", "options"), [("yolov3_param", YOLO3), ("region_loss_param", REGION)])
def test_boxes_of_ssd_are_read_as_those_of_yolo(kind, options):
    x = np.random.default_rng(4).normal(size=(2, 16, 3, 4))
    rows = [
        [image, row[0] + 1, 0, *(row[1:3] - row[3:] / 2), *(row[1:3] + row[3:] / 2), 0]
        for image in (1, 0)
        for row in rows_of(TRUTH[image])
    ]
    name = "Yolov3" if kind == "yolov3_param" else "RegionLoss"
    expected = apply(name, f"{kind} {{ {options} }}", x, TRUTH)
    assert apply(name, f"{kind} {{ {options} }}", x, [[rows]]).item() == pytest.approx(expected.item())
    none = apply(name, f"{kind} {{ {options} }}", x, [[[[-1.0] * 8]]])
    assert none.item() == pytest.approx(apply(name, f"{kind} {{ {options} }}", x, TRUTH * 0).item())


def test_options_without_effect_are_reported(caplog):
    text = "yolov3_param { num_class: 2 num: 1 biases: [10, 13] mask: 0 noobject_scale: 2 side: 13 }"
    build("Yolov3", text, (1, 7, 2, 2), (1, 5))
    assert "noobject_scale, side have no effect, as in the fork that has them" in caplog.text
    caplog.clear()
    build("Yolov3", text.replace("noobject_scale: 2 side: 13", ""), (1, 7, 2, 2), (1, 5))
    assert "no effect" not in caplog.text


def test_assisted_excitation_fades_in_the_cells_of_objects():
    x, mean = np.zeros((1, 2, 4, 5)), np.arange(20.0).reshape(1, 4, 5)
    truth = np.array([[0, 0.5, 0.5, 0.4, 0.5, 1, 0.1, 0.125, 0.2, 0.25, 0, 0, 0, 0.5, 0.5]])
    layer = build("AssistedExcitation", "assisted_excitation_param { max_iter: 2 }", x.shape, truth.shape, mean.shape)
    layer.runs.zero_()
    inside = np.zeros((4, 5))
    inside[1:3, 2:4] = 1  # columns round(1.5) to round(3.5)
    inside[0, 0] = 1
    for alpha in (1, np.sqrt(0.5), 0, 0):
        y = layer(*(torch.tensor(a) for a in (x, truth, mean)))
        np.testing.assert_allclose(y[0], np.stack([inside * mean[0] * alpha] * 2), atol=1e-6)
    assert layer.runs.item() == 4
    layer.eval()
    assert not layer(*(torch.tensor(a) for a in (x, truth, mean))).any()
    with pytest.raises(LayerError, match="max_iter is needed to train"):
        apply("AssistedExcitation", "", x, truth, mean)
