"""Cases of caffe.layers.deeplab."""

import numpy as np

from tests.layers.case import Case, within
from tests.layers.cases.detection import given

ELSEWHERE: dict[str, str] = {}
VALUES = {"compile": "needs values in Python"}
SIZES = given(np.array([[4, 5], [3, 4]]).reshape(2, 2, 1, 1))
KERNELS = "pos_w: 3 pos_xy_std: 3 bi_w: 5 bi_xy_std: 50 bi_rgb_std: 3 max_iter: 2"
CASES = [
    Case("DenseCRF", "images", ((2, 3, 4, 5), SIZES, (2, 3, 4, 5)), f"dense_crf_param {{ {KERNELS} }}", skip=VALUES),
    Case(
        "DenseCRF",
        "logs",
        ((2, 3, 4, 5), SIZES),
        "dense_crf_param { max_iter: 0 output_probability: false }",
        skip=VALUES,
    ),
    Case(
        "DomainTransform",
        "plain",
        ((2, 3, 4, 5), within(0.1, 1, 2, 1, 4, 5), SIZES),
        "domain_transform_param { spatial_sigma: 4 range_sigma: 1 num_iter: 2 }",
    ),
    Case(
        "AdaptiveBiasChannel",
        "plain",
        ((2, 4, 3, 5), given(np.array([0, 2, -1, 3, 1, -1]).reshape(2, 3, 1, 1))),
        "adaptive_bias_channel_param { num_iter: 2 bg_portion: 0.2 fg_portion: 0.3 suppress_others: true }",
        skip=VALUES,
    ),
]
