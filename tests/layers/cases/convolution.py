"""Cases of caffe.layers.convolution."""

from tests.layers.case import Case

ELSEWHERE: dict[str, str] = {}


def both(name: str, shape: tuple[int, ...], options: str) -> list[Case]:
    """Return cases with the same options for a convolution and its transpose."""
    return [
        Case(kind, name, (shape,), f"convolution_param {{ {options} }}") for kind in ("Convolution", "Deconvolution")
    ]


CASES = [
    Case(
        "DepthwiseConvolution",
        "pad",
        ((2, 4, 7, 5),),
        "convolution_param { num_output: 4 group: 4 kernel_size: 3 pad: 1 }",
    ),
    Case("DepthwiseConvolution", "two", ((2, 4, 7), (2, 4, 7)), "convolution_param { kernel_size: 3 }", tops=2),
    Case(
        "ConvolutionDepthwise",
        "plain",
        ((2, 3, 7, 5),),
        "convolution_param { kernel_size: 3 stride: 2 bias_term: false }",
    ),
    *both("kernel", (2, 3, 7, 5), "num_output: 4 kernel_size: 3"),
    *both("pad_stride", (2, 3, 8, 11), "num_output: 5 kernel_size: 3 pad: 1 stride: 2"),
    *both("sides", (1, 2, 9, 7), "num_output: 3 kernel_h: 4 kernel_w: 2 pad_h: 2 stride_h: 3 stride_w: 2"),
    *both("dilation", (2, 3, 9, 8), "num_output: 2 kernel_size: 3 pad: 2 dilation: 2 dilation: 1"),
    *both("group", (2, 6, 5, 4), "num_output: 9 kernel_size: 2 group: 3"),
    *both("no_bias", (3, 2, 5, 6), "num_output: 4 kernel_size: 3 bias_term: false"),
    *both("negative_axis", (2, 2, 3, 7, 5), "num_output: 4 kernel_size: 3 axis: -3"),
    *both("no_batch", (3, 7, 5), "num_output: 4 kernel_size: 3 axis: 0"),
    *both("nd0", (2, 3), "num_output: 5 kernel_size: 1 bias_term: true"),
    *both("nd1", (2, 3, 7), "num_output: 4 kernel_size: 3 pad: 1"),
    *both("nd2_forced", (2, 3, 7, 5), "num_output: 4 kernel_size: 3 force_nd_im2col: true"),
    *both("nd3", (2, 2, 4, 5, 3), "num_output: 3 kernel_size: 2 pad: 1 stride: 2 stride: 1 stride: 1"),
    *both("nd4", (2, 2, 4, 3, 5, 2), "num_output: 4 kernel_size: 2 pad: 1 stride: 2 dilation: 1 group: 2"),
    Case(
        "Convolution",
        "kernel_beyond_bottom",
        ((2, 3, 2, 5),),
        "convolution_param { num_output: 2 kernel_size: 3 stride: 2 }",
    ),
    Case(
        "Convolution",
        "two_bottoms",
        ((2, 3, 7, 5), (2, 3, 7, 5)),
        "convolution_param { num_output: 4 kernel_size: 3 }",
        2,
    ),
    Case(
        "Deconvolution",
        "two_bottoms",
        ((2, 3, 4, 5), (2, 3, 4, 5)),
        "convolution_param { num_output: 4 kernel_size: 3 }",
        2,
    ),
    Case(
        "Im2col",
        "all",
        ((2, 3, 9, 8),),
        "convolution_param { kernel_h: 2 kernel_w: 3 stride: 2 stride: 3 pad: 1 dilation: 2 }",
    ),
    Case("Im2col", "axis", ((2, 2, 3, 7, 5),), "convolution_param { kernel_size: 3 axis: 2 }"),
    Case("Im2col", "nd1", ((2, 3, 7),), "convolution_param { kernel_size: 3 stride: 2 pad: 1 }"),
]
