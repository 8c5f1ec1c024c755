"""Cases of caffe.layers.groups."""

from tests.layers.case import Case

ELSEWHERE: dict[str, str] = {}
CASES = [
    Case("GroupNorm", "plain", ((2, 6, 3, 5),), "group_norm_param { group_num: 3 eps: 0.001 }"),
    Case("GroupNorm", "ratio", ((2, 6, 3),), "group_norm_param { group_ratio: 2 }"),
    Case("GroupNorm", "scaled", ((2, 6, 3, 5),), "group_norm_param { group: 2 scale_filler { value: 1 } }"),
    Case("LayerNorm", "plain", ((3, 2, 5),)),
    Case("LayerNorm", "without", ((3, 2, 5),), "layer_norm_param { elementwise_affine: false eps: 0.001 }"),
    Case("InstanceNorm", "plain", ((2, 3, 4, 5),)),
]
