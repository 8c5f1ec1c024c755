"""Cases of caffe.layers.arrangement."""

from tests.layers.case import Case

ELSEWHERE: dict[str, str] = {}
CASES = [
    Case("ShuffleChannel", "group", ((2, 6, 3, 4),), "shuffle_channel_param { group: 3 }"),
    Case("ShuffleChannel", "one", ((2, 6),)),
    Case("Flip", "default", ((2, 3, 4, 5),)),
    Case("Flip", "both", ((2, 3, 4, 5),), "flip_param { flip_height: true }"),
    Case("Flip", "none", ((2, 3, 4, 5),), "flip_param { flip_width: false }"),
    Case("Reverse", "default", ((5, 2, 3),)),
    Case("Reverse", "axis", ((5, 2, 3),), "reverse_param { axis: -1 }"),
    Case("Transpose", "default", ((2, 3, 4, 5),), "transpose_param { dim: [3, 2, 0, 1] }"),
    Case("SpaceToDepth", "two", ((2, 3, 4, 6),), "space_to_depth_param { block_size: 2 }"),
    Case("DepthToSpace", "two", ((2, 12, 3, 5),), "depth_to_space_param { block_size: 2 }"),
    Case("Gather", "two", ((2, 3), (5,)), tops=2),
]
