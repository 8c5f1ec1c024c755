"""Cases of caffe.layers.dense."""

from tests.layers.case import Case, labels

ELSEWHERE: dict[str, str] = {}
CASES = [
    Case("InnerProduct", "default", ((3, 2, 5),), "inner_product_param { num_output: 4 }"),
    Case("InnerProduct", "axis", ((2, 3, 5, 2),), "inner_product_param { num_output: 4 axis: -2 }"),
    Case("InnerProduct", "axis_zero", ((3, 5),), "inner_product_param { num_output: 4 axis: 0 }"),
    Case("InnerProduct", "transpose", ((2, 3, 5),), "inner_product_param { num_output: 7 transpose: true }"),
    Case("InnerProduct", "no_bias", ((2, 3, 5, 7),), "inner_product_param { num_output: 2 bias_term: false }"),
    Case("Embed", "bias", (labels(7, 5, 2),), "embed_param { num_output: 3 input_dim: 7 } loss_weight: 1"),
    Case("Embed", "no_bias", (labels(4, 6),), "embed_param { num_output: 5 input_dim: 4 bias_term: false }"),
    Case("Bias", "default", ((2, 3, 5, 7),)),
    Case("Bias", "axes", ((2, 3, 5),), "bias_param { axis: 0 num_axes: 2 }"),
    Case("Bias", "rest", ((2, 3, 5),), "bias_param { axis: -2 num_axes: -1 }"),
    Case("Bias", "scalar", ((2, 3, 5),), "bias_param { num_axes: 0 }"),
    Case("Bias", "two_bottoms", ((2, 3, 5, 7), (3, 5))),
    Case("Bias", "two_bottoms_scalar", ((2, 3, 5), ())),
    Case("Scale", "default", ((2, 3, 5, 7),)),
    Case("Scale", "bias", ((2, 3, 5, 7),), "scale_param { bias_term: true }"),
    Case("Scale", "axes", ((2, 3, 5),), "scale_param { axis: 0 num_axes: 2 bias_term: true }"),
    Case("Scale", "rest", ((2, 3, 5, 7),), "scale_param { axis: 2 num_axes: -1 }"),
    Case("Scale", "scalar", ((2, 3, 5),), "scale_param { num_axes: 0 bias_term: true }"),
    Case("Scale", "two_bottoms", ((2, 3, 5, 7), (3, 5)), "scale_param { axis: 1 }"),
    Case("Scale", "two_bottoms_bias", ((2, 3, 5, 7), (2, 3)), "scale_param { axis: 0 bias_term: true }"),
    Case("Scale", "two_bottoms_scalar", ((2, 3, 5), ()), "scale_param { axis: 2 bias_term: true }"),
]
