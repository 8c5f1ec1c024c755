"""Cases of caffe.layers.yolo."""

from __future__ import annotations

import numpy as np

from tests.layers.case import Case, within
from tests.layers.cases.detection import given

ELSEWHERE: dict[str, str] = {}
COUNT = dict.fromkeys(("shape", "device", "compile", "gradient"), "detections depend on values, and have no gradient")
VALUES = {"compile": "needs values in Python"}
CHECKS = {"compile": "looks at the truth to check it"}
TRUTH = np.array(
    [
        [[1, 0.3, 0.4, 0.2, 0.3], [0, 0.31, 0.42, 0.25, 0.3], [2, 0.7, 0.1, 0.6, 0.5], [0, 0, 0, 0, 0]],
        [[0, 0.9, 0.9, 0.15, 0.2], [0, 0, 0, 0, 0], [1, 0.5, 0.5, 0.5, 0.5], [0, 0, 0, 0, 0]],
    ]
)
GRID = np.zeros((2, 7, 9))
GRID[:, 2] = -1
for _image, _cell, _label, _hard, _box in (
    (0, 4, 1, 0, (0.5, 0.45, 0.3, 0.4)),
    (0, 8, 0, 1, (0.8, 0.9, 0.2, 0.2)),
    (1, 0, 1, 0, (0.1, 0.2, 0.2, 0.1)),
):
    GRID[_image, :3, _cell] = _hard, 1, _label
    GRID[_image, 3:].reshape(-1, 4)[_cell] = _box
MAP = within(-1.5, 1.5, 2, 16, 3, 4)
BIASES = "biases: 0.8 biases: 1.1 biases: 2.3 biases: 1.9"
REGION = f"num: 2 num_class: 3 coords: 4 object_scale: 5 noobject_scale: 1 class_scale: 1 coord_scale: 2 {BIASES}"
YOLO3 = "num: 2 num_class: 3 anchors_scale: 8 biases: [9, 12, 14, 10, 20, 16] mask: [1, 2] thresh: 0.4"
FIRST = within(0.05, 0.95, 2, 108)  # 9 cells, 2 classes, 2 boxes
ONE = "side: 3 num_class: 2 num_object: 2"
CASES = [
    Case(
        "RegionLoss",
        "rescore",
        (MAP, given(TRUTH)),
        f"region_loss_param {{ {REGION} rescore: 1 thresh: 0.3 }}",
        skip=CHECKS,
    ),
    Case(
        "RegionLoss",
        "bias_match",
        (MAP, given(TRUTH)),
        f"region_loss_param {{ {REGION} bias_match: 1 thresh: 0.6 }}",
        skip=CHECKS,
    ),
    Case("Yolov3", "plain", (MAP, given(TRUTH)), f"yolov3_param {{ {YOLO3} }}", skip=CHECKS),
    Case("Yolov3", "logic", (MAP, given(TRUTH)), f"yolov3_param {{ {YOLO3} use_logic_gradient: true }}", skip=CHECKS),
    Case("Yolov3", "iou", (MAP, given(TRUTH)), f"yolov3_param {{ {YOLO3} iou_loss: IOU }}", skip=CHECKS),
    Case(
        "Yolov3",
        "giou",
        (MAP, given(TRUTH)),
        f"yolov3_param {{ {YOLO3} iou_loss: GIOU use_focal_loss: true }}",
        skip=CHECKS,
    ),
    Case("YoloSeg", "plain", ((2, 1, 3, 4), within(0, 1, 2, 1, 3, 4)), "yolo_seg_param { object_scale: 0.5 }"),
    Case(
        "AssistedExcitation",
        "train",
        ((2, 3, 4, 5), given(np.tile([0, 0.5, 0.4, 0.6, 0.5, *[0] * 5], (2, 1))), (2, 4, 5)),
        "assisted_excitation_param { max_iter: 9 }",
    ),
    Case(
        "DetectionLoss", "plain", (FIRST, given(GRID.reshape(2, -1))), f"detection_loss_param {{ {ONE} }}", skip=CHECKS
    ),
    Case(
        "DetectionLoss",
        "cells",
        (FIRST, given(GRID.reshape(2, -1))),
        f"detection_loss_param {{ {ONE} constriant: true sqrt: false }}",
        skip=CHECKS,
    ),
    Case(
        "EvalDetection",
        "first",
        (FIRST, given(GRID.reshape(2, -1))),
        f"eval_detection_param {{ {ONE} nms: 0.5 }}",
        skip=VALUES,
    ),
    Case(
        "EvalDetection",
        "second",
        (within(-1.5, 1.5, 2, 16, 4, 4), given(TRUTH)),
        f"eval_detection_param {{ side: 4 num_class: 3 num_object: 2 nms: 0.5 threshold: 0.1 {BIASES} }}",
        skip=VALUES,
    ),
    Case(
        "SegmentationEvaluate",
        "plain",
        ((2, 3, 4, 5), (2, 3, 4, 5)),
        "segmentation_evaluate_param { num_classes: 3 threshold: 0.5 }",
    ),
    Case(
        "YoloDetectionOutput",
        "two",
        (MAP, MAP),
        f"yolo_detection_output_param {{ num_classes: 3 num_box: 2 {BIASES} }}",
        skip=COUNT,
    ),
    Case(
        "Yolov3DetectionOutput",
        "two",
        (MAP, within(-1, 1, 2, 16, 2, 2)),
        "yolov3_detection_output_param { num_classes: 3 num_box: 2 biases: [9, 12, 14, 10, 20, 16] mask: [1, 2, 0, 1] "
        "anchors_scale: [8, 16] confidence_threshold: 0.2 }",
        skip=COUNT,
    ),
]
