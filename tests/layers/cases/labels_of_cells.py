"""Cases of caffe.layers.labels_of_cells."""

import numpy as np

from tests.layers.case import Case, labels, within
from tests.layers.cases.detection import given

ELSEWHERE: dict[str, str] = {}
VALUES = {"compile": "needs values in Python"}
CHECKS = {"compile": "looks at the labels to check them"}
CASES = [
    Case(
        "SegAccuracy",
        "plain",
        ((2, 3, 4, 5), labels(3, 2, 1, 4, 5)),
        "seg_accuracy_param { ignore_label: 2 }",
        skip=CHECKS,
    ),
    Case(
        "ParseEvaluate",
        "plain",
        (labels(3, 2, 1, 4, 5), labels(3, 2, 1, 4, 5)),
        "parse_evaluate_param { num_labels: 3 ignore_label: 2 }",
        skip=CHECKS,
    ),
    Case(
        "UniqueLabel",
        "plain",
        (labels(3, 2, 1, 4, 5),),
        "unique_label_param { max_labels: 5 force_label: 7 }",
        skip=VALUES,
    ),
    Case(
        "BiasChannel",
        "plain",
        ((2, 4, 2, 3), given(np.array([0, 2, -1, 3, 1, -1]).reshape(2, 3, 1, 1))),
        "bias_channel_param { bg_bias: 1 fg_bias: 2 }",
        skip=CHECKS,
    ),
    Case(
        "BatchReduction", "all", ((2, 3, 4),), "batch_reduction_param { reduction_param { axis: 1 operation: MEAN } }"
    ),
    Case(
        "BatchReduction",
        "levels",
        ((5, 3),),
        "batch_reduction_param { level: [1, 2] reduction_param { axis: 0 operation: SUM } }",
    ),
    Case("MergeCrop", "stack", ((2, 3, 4, 5), (2, 1, 7, 6)), "mergecrop_param { backward: [true, true] }"),
    Case("MergeCrop", "add", ((2, 3, 4), (2, 3, 7)), "mergecrop_param { operation: ADD backward: [true, true] }"),
    Case("Switch", "plain", ((2, 3), (2, 3))),
    Case("Nms", "plain", ((2, 3, 6, 7),), "nms_param { num_parts: 2 max_peaks: 3 threshold: 0.2 }"),
    Case("Nms", "first", ((2, 1, 6, 7),), "nms_param { num_peak: 3 threshold: 0.2 }"),
    Case("DiceCoefLoss", "plain", ((3, 2, 4), within(0, 1, 3, 8))),
]
