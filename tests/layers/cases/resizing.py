"""Cases of caffe.layers.resizing."""

from tests.layers.case import Bottom, Case

ELSEWHERE: dict[str, str] = {}
CASES = [
    Case("Upsample", "copies", ((2, 3, 2, 5),), "upsample_param { scale: 3 }"),
    Case("Upsample", "sides", ((2, 3, 2, 5),), "upsample_param { height_scale: 2 width_scale: 1 mode: NEAREST }"),
    Case("Upsample", "mask", ((1, 1, 2, 1), Bottom((1, 1, 2, 1), 3, 4, integers=True)), "upsample_param { scale: 2 }",
         skip={"gradient": "both cells stand at one place"}),
    Case("Upsample", "mask_size", ((2, 3, 1, 1), Bottom((2, 3, 1, 1), 0, 16, integers=True)),
         "upsample_param { upsample_h: 4 upsample_w: 4 }"),
    Case("UNPOOLING", "mask", ((2, 3, 1, 1), Bottom((2, 3, 1, 1), 0, 16, integers=True)),
         "unpooling_param { kernel_size: 4 }"),
    Case("UNPOOLING", "corner", ((2, 3, 2, 3),),
         "unpooling_param { kernel_size: 2 stride: 2 unpool_h: 5 unpool_w: 6 }"),
    Case("UNPOOLING", "tile", ((2, 3, 2, 3),), "unpooling_param { unpool: TILE kernel_size: 3 stride: 2 }"),
    Case("UNPOOLING", "mean", ((2, 3, 2, 3),),
         "unpooling_param { unpool: AVE kernel_size: 3 stride: 2 unpool_size: 4 }"),
    Case("Interp", "zoom", ((2, 3, 4, 5),), "interp_param { zoom_factor: 3 }"),
    Case("Interp", "shrink", ((2, 3, 7, 6),), "interp_param { shrink_factor: 2 pad_beg: -1 pad_end: -1 }"),
    Case("Interp", "both", ((2, 3, 7, 6),), "interp_param { shrink_factor: 2 zoom_factor: 3 }"),
    Case("Interp", "size", ((2, 3, 4, 5),), "interp_param { height: 7 width: 1 }"),
    Case("Reorg", "default", ((2, 8, 4, 6),), "reorg_param { stride: 2 }"),
    Case("Reorg", "reverse", ((2, 8, 3, 5),), "reorg_param { stride: 2 reverse: true }"),
    Case("RESIZE", "larger", ((2, 3, 4, 5),), "resize_param { height: 7 width: 11 }"),
    Case("RESIZE", "smaller", ((2, 3, 7, 5),), "resize_param { height: 3 width: 2 }"),
    Case("ImResize", "factor", ((2, 3, 4, 5),), "imresize_param { factor: 8 scale_gap: 0.1 }"),
    Case("ImResize", "size", ((2, 3, 4, 5),), "imresize_param { target_spatial_height: 3 target_spatial_width: 9 }"),
]  # fmt: skip
