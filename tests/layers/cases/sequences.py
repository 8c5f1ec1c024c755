"""Cases of caffe.layers.sequences."""

from __future__ import annotations

import numpy as np

from tests.layers.case import Case
from tests.layers.cases.detection import given

ELSEWHERE: dict[str, str] = {}
SOURCE = dict.fromkeys(("dtype", "device"), "makes float32 where it is allocated")
CONT = given(np.array([0, 1, 1, 0, 1, 1]))
CASES = [
    Case("Lstm", "plain", ((6, 2, 2),), "lstm_param { num_output: 3 batch_size: 2 }"),
    Case("Lstm", "apart", ((3, 2, 4),), "lstm_param { num_output: 3 }"),
    Case("Lstm", "cont", ((6, 3), CONT), "lstm_param { num_output: 3 batch_size: 2 }"),
    Case("Lstm", "clip", ((6, 3),), "lstm_param { num_output: 3 clipping_threshold: 0.01 }"),
    Case(
        "ContinuationIndicator", "alone", (), "continuation_indicator_param { time_step: 3 batch_size: 2 }", skip=SOURCE
    ),
    Case("ContinuationIndicator", "bottom", ((2, 3),), "continuation_indicator_param { time_step: 3 }"),
    Case(
        "ReverseTime", "zeros", ((4, 3, 2), given(np.array([4, 2, 0]))), "reverse_time_param { copy_remaining: false }"
    ),
    Case("ReverseTime", "copy", ((4, 3, 2), given(np.array([4, 2, 0]))), "reverse_time_param { copy_remaining: true }"),
]
