"""Cases of caffe.layers.pooling."""

from caffe.proto.caffe_pb2 import TEST
from tests.layers.case import Case, positive

ELSEWHERE: dict[str, str] = {}


def pool(name: str, shape: tuple[int, ...], options: str) -> list[Case]:
    """Return cases with the same windows for MAX and AVE."""
    return [
        Case("Pooling", f"{kind.lower()}_{name}", (shape,), f"pooling_param {{ pool: {kind} {options} }}")
        for kind in ("MAX", "AVE")
    ]


RANDOM = dict.fromkeys(("dtype", "strides"), "draws other numbers")
STOCHASTIC = "pooling_param { pool: STOCHASTIC kernel_size: 3 stride: 2 }"
CASES = [
    *pool("even", (2, 3, 7, 5), "kernel_size: 2 stride: 2"),
    *pool("overlapping", (2, 3, 8, 6), "kernel_size: 3 stride: 2"),
    *pool("floor", (2, 3, 8, 6), "kernel_size: 3 stride: 2 round_mode: FLOOR"),
    *pool("pad", (2, 2, 6, 9), "kernel_size: 3 stride: 2 pad: 1"),
    *pool("pad_over_half", (2, 2, 6, 9), "kernel_size: 3 stride: 2 pad: 2"),
    *pool("pad_one_side", (2, 2, 6, 9), "kernel_h: 3 kernel_w: 1 stride: 2 pad_h: 1 pad_w: 0"),
    *pool("sides", (1, 3, 9, 10), "kernel_h: 2 kernel_w: 4 stride_h: 3 stride_w: 2 pad_h: 1 pad_w: 2"),
    *pool("global", (3, 2, 5, 7), "global_pooling: true"),
    *pool("kernel_beyond_bottom", (2, 3, 2, 5), "kernel_size: 3 stride: 2"),
    Case("Pooling", "many_channels", ((2, 11, 7, 5),), "pooling_param { kernel_size: 3 stride: 2 pad: 1 }"),
    Case("Pooling", "many_channels_padded", ((2, 11, 7, 5),), "pooling_param { kernel_size: 3 stride: 2 pad: 2 }"),
    Case(
        "Pooling", "inside", ((2, 3, 7, 5),), "pooling_param { pool: AVE kernel_size: 3 pad: 2 avg_include_pad: false }"
    ),
    Case("Pooling", "mask", ((2, 3, 7, 6),), "pooling_param { kernel_size: 3 stride: 2 pad: 1 }", tops=2),
    Case("Pooling", "mask_global", ((2, 3, 5, 7),), "pooling_param { global_pooling: true }", tops=2),
    Case("Pooling", "random_train", (positive(2, 3, 7, 5),), STOCHASTIC, skip=RANDOM),
    Case("Pooling", "random_test", (positive(2, 3, 7, 5),), STOCHASTIC, phase=TEST),
    Case("SPP", "one_level", ((2, 3, 7, 5),), "spp_param { pyramid_height: 1 }"),
    Case("SPP", "max", ((2, 3, 7, 5),), "spp_param { pyramid_height: 2 }"),
    Case("SPP", "ave", ((2, 2, 9, 11),), "spp_param { pyramid_height: 3 pool: AVE }"),
]
