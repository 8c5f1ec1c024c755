"""Cases of caffe.layers.rectifiers."""

from caffe.proto.caffe_pb2 import TEST
from tests.layers.case import Case, within

RANDOM = {"strides": "draws in the order of memory", "dtype": "each precision draws numbers of its own"}
RRELU = "rrelu_param { negative_slope_lower: 3 negative_slope_upper: 8 }"
ELSEWHERE: dict[str, str] = {}
CASES = [
    Case("ReLU6", "default", (within(-3, 11, 2, 3, 5),)),
    Case("NegReLU", "default", ((2, 3, 5),)),
    Case("CReLU", "default", ((2, 3, 5),)),
    Case("Mish", "default", (within(-30, 30, 2, 3, 5),)),
    Case("SELU", "default", ((2, 3, 5),)),
    Case("SELU", "options", ((2, 3),), "selu_param { lambda: 2 alpha: 0.5 }"),
    Case("SeLU", "default", ((2, 3, 5),)),
    Case("HardSigmoid", "default", (within(-4.9, 5.1, 2, 3, 5),)),
    Case("HardSigmoid", "options", (within(-4.9, 5.1, 2, 3, 5),), "hard_sigmoid_param { alpha: 0.5 beta: 0.1 }"),
    Case("HardSwish", "default", (within(-5.3, 4.9, 2, 3, 5),)),
    Case("SELUDropout", "train", ((2, 3, 5),), "selu_dropout_param { dropout_ratio: 0.4 }", skip=RANDOM),
    Case("SELUDropout", "test", ((2, 3, 5),), phase=TEST),
    Case("SeLUDropout", "train", ((2, 3, 5),), skip=RANDOM),
    Case("SeLUDropout", "test", ((2, 3, 5),), phase=TEST),
    Case("Insanity", "train", ((2, 3, 5),), skip=RANDOM),
    Case("Insanity", "test", ((2, 3, 5),), "insanity_param { lb: 2 ub: 3 }", phase=TEST),
    Case("Insanity", "fixed", ((2, 3, 5),), "insanity_param { lb: 4 ub: 4 }", phase=TEST),
    Case("RReLU", "train", ((2, 3, 5),), RRELU, skip=RANDOM),
    Case("RReLU", "test", ((2, 3, 5),), RRELU, phase=TEST),
    Case("ScaleFilter", "train", ((2, 3, 5),), "scale_filter_param { min_scale: 0.5 max_scale: 2 }", skip=RANDOM),
    Case("ScaleFilter", "test", ((2, 3, 5),), "scale_filter_param { min_scale: 0.5 max_scale: 2 }", phase=TEST),
    Case("SpatialDropout", "train", ((2, 3, 5),), skip=RANDOM),
    Case("SpatialDropout", "test", ((2, 3, 5),), phase=TEST),
    Case("EltwiseAffine", "plain", ((2, 3, 5),)),
    Case("EltwiseAffine", "shared", ((2, 3, 5),), "eltwise_affine_param { channel_shared: true }"),
    Case("Noise", "train", ((2, 3, 5),), "noise_param { gaussian_std: 0.5 }", skip=RANDOM),
    Case("Noise", "test", ((2, 3, 5),), "noise_param { gaussian_std: 0.5 }", phase=TEST),
    Case("APL", "plain", ((2, 3, 2),), "apl_param { sums: 4 }"),
]
