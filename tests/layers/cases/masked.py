"""Cases of caffe.layers.masked."""

from tests.layers.case import Case

ELSEWHERE: dict[str, str] = {}
MASKS = "weight_mask_filler { value: 1 } bias_mask_filler { value: 1 }"
CASES = [
    Case(
        "CConvolution",
        "plain",
        ((2, 4, 5, 6),),
        f"convolution_param {{ num_output: 4 kernel_size: 3 pad: 1 group: 2 }} cconvolution_param {{ {MASKS} }}",
    ),
    Case(
        "CConvolution", "own", ((2, 4, 5, 6),), "cconvolution_param { num_output: 3 kernel_size: 2 bias_term: false }"
    ),
    Case("CConvolutionDepthwise", "plain", ((2, 4, 5, 6),), "convolution_param { kernel_size: 3 }"),
    Case(
        "CInnerProduct",
        "plain",
        ((2, 3, 4),),
        f"inner_product_param {{ num_output: 3 }} cinner_product_param {{ {MASKS} }}",
    ),
    Case("CInnerProduct", "own", ((2, 3, 4),), "cinner_product_param { num_output: 3 bias_term: false }"),
]
