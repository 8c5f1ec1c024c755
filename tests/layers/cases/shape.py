"""Cases of caffe.layers.shape."""

from tests.layers.case import Case, labels, within

ELSEWHERE = {"Silence": "tests/layers/test_quirks_shape.py"}
VALUES = "the number of kept items depends on values; test_quirks_shape.py"
SELECTED = dict.fromkeys(("shape", "device", "compile"), VALUES)
CASES = [
    Case("Concat", "default", ((2, 3, 5), within(0, 1, 2, 7, 5))),
    Case("Concat", "one", ((2, 3, 5),)),
    Case("Concat", "axis", ((2, 3, 5), within(0, 1, 2, 3, 2), within(3, 4, 2, 3, 1)), "concat_param { axis: -1 }"),
    Case("Concat", "fused", ((2, 3, 4, 5), (2, 2, 1, 2)), "concat_param { per_fla_fuse: true }"),
    Case("Concat", "old_name", ((2, 3), within(0, 1, 5, 3)), "concat_param { concat_dim: 0 }"),
    Case("Slice", "equal", ((2, 6, 5),), tops=3),
    Case("Slice", "one", ((2, 3, 5),)),
    Case("Slice", "points", ((2, 3, 7),), "slice_param { axis: -1 slice_point: 1 slice_point: 5 }", tops=3),
    Case("Slice", "empty_end", ((2, 5, 3),), "slice_param { slice_point: 5 }", tops=2),
    Case("Slice", "old_name", ((4, 3, 5),), "slice_param { slice_dim: 0 }", tops=2),
    Case("Split", "one", ((2, 3, 5),)),
    Case("Split", "three", ((2, 3, 5),), tops=3),
    Case("Flatten", "default", ((2, 3, 5, 7),)),
    Case("Flatten", "middle", ((2, 3, 5, 7),), "flatten_param { axis: -3 end_axis: 2 }"),
    Case("Flatten", "insert", ((2, 3, 5),), "flatten_param { axis: 2 end_axis: 1 }"),
    Case("Reshape", "flat", ((2, 3, 5),), "reshape_param { shape { dim: -1 } }"),
    Case("Reshape", "copy_and_find", ((2, 3, 5, 7),), "reshape_param { shape { dim: 0 dim: -1 dim: 7 } }"),
    Case("Reshape", "middle", ((2, 12, 5),), "reshape_param { shape { dim: 3 dim: -1 } axis: 1 num_axes: 1 }"),
    Case("Reshape", "append", ((2, 3),), "reshape_param { shape { dim: 1 dim: 1 } axis: -1 num_axes: 0 }"),
    Case("Reshape", "negative", ((2, 3, 5),), "reshape_param { shape { dim: 5 dim: 3 } axis: -3 }"),
    Case("Crop", "default", ((2, 3, 7, 9), within(0, 1, 2, 1, 5, 7)), "crop_param { offset: 1 }"),
    Case("Crop", "each", ((2, 7, 5, 9), (2, 3, 5, 7)), "crop_param { axis: 1 offset: 3 offset: 0 offset: 2 }"),
    Case("Crop", "last", ((2, 3, 7), (5, 2, 3)), "crop_param { axis: -1 offset: 4 }"),
    Case("Permute", "default", ((2, 3, 5, 7),), "permute_param { order: [0, 2, 3, 1] }"),
    Case("Permute", "rest", ((2, 3, 5, 7),), "permute_param { order: 2 }"),
    Case("Permute", "none", ((2, 3),)),
    Case("Tile", "default", ((2, 3, 5),), "tile_param { tiles: 3 }"),
    Case("Tile", "axis", ((2, 3, 5),), "tile_param { axis: -1 tiles: 2 }"),
    Case("Tile", "one", ((2, 3),), "tile_param { tiles: 1 }"),
    Case("Filter", "some", ((5, 3, 2), labels(2, 5)), skip=SELECTED),
    Case("Filter", "two", ((7, 3), within(0, 1, 7, 2, 5), labels(2, 7, 1, 1, 1)), tops=2, skip=SELECTED),
    Case("BatchReindex", "default", ((3, 5, 2), labels(3, 7))),
    Case("BatchReindex", "one_axis", ((3,), labels(3, 2))),
]
