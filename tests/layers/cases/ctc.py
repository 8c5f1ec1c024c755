"""Cases of caffe.layers.ctc."""

from __future__ import annotations

import numpy as np

from tests.layers.case import Case
from tests.layers.cases.detection import given

ELSEWHERE: dict[str, str] = {}
CHECKS = {"compile": "looks at the labels to check them"}
LABELS = np.array([[1, 2, 4], [3, 3, 4]])
ROWS = np.array([[1, 2, -1], [3, -1, -1], [-1, -1, -1], [-1, -1, -1], [-1, -1, -1]])
STARTS = np.array([[0, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 1], [1, 1, 1]])
CASES = [
    Case(
        "CtcLoss",
        "plain",
        ((5, 2, 5), given(LABELS)),
        "ctc_loss_param { alphabet_size: 5 time_step: 5 blank_label: 4 }",
        skip=CHECKS,
    ),
    Case(
        "CTCLoss", "plain", ((5, 3, 5), given(STARTS), given(ROWS)), "ctc_loss_param { blank_index: -1 }", skip=CHECKS
    ),
    Case(
        "CTCLoss",
        "delay",
        ((5, 3, 5), given(STARTS), given(ROWS)),
        "ctc_loss_param { blank_index: 0 output_delay: 1 preprocess_collapse_repeated: true }",
        skip=CHECKS,
    ),
    Case("WarpCTCLoss", "labels", ((5, 2, 5), given(LABELS)), "ctc_loss_param { blank_index: 4 }", skip=CHECKS),
    Case(
        "WarpCTCLoss",
        "indicators",
        ((5, 3, 5), given(STARTS), given(ROWS)),
        "ctc_loss_param { blank_index: 0 }",
        skip=CHECKS,
    ),
    Case(
        "WarpCTCLoss",
        "lengths",
        ((5, 2, 5), given(np.array([5, 4])), given(np.array([3, 2])), given(LABELS.T)),
        "ctc_loss_param { blank_index: 0 }",
        skip=CHECKS,
    ),
    Case("CTCDecoder", "score", ((5, 3, 4), given(STARTS)), tops=2),
    Case("CTCDecoder", "accuracy", ((5, 3, 4), given(STARTS), given(ROWS)), "ctc_decoder_param { blank_index: -1 }", 2),
    Case("CTCGreedyDecoder", "plain", ((5, 3, 4),)),
    Case(
        "LabelsequenceAccuracy", "plain", ((2, 5, 5), given(LABELS)), "labelsequence_accuracy_param { blank_label: 4 }"
    ),
]
