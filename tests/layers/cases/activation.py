"""Cases of caffe.layers.activation."""

from caffe.proto.caffe_pb2 import TEST
from tests.layers.case import Case, positive, within

RANDOM = {"strides": "draws in the order of memory"}
ELSEWHERE: dict[str, str] = {}
CASES = [
    Case("AbsVal", "4d", ((2, 3, 5, 7),)),
    Case("BNLL", "wide", (within(-60, 60, 2, 3, 5),)),
    Case("Clip", "both_sides", ((3, 5, 7),), "clip_param { min: -0.7 max: 1.1 }"),
    Case("Clip", "min_above_max", ((3, 5),), "clip_param { min: 0.7 max: -1.1 }"),
    Case("Dropout", "train", ((5, 7, 11),), "dropout_param { dropout_ratio: 0.3 }", skip=RANDOM),
    Case("Dropout", "test", ((2, 3, 5),), "dropout_param { dropout_ratio: 0.3 }", phase=TEST),
    Case("Dropout", "vanilla_train", ((5, 7, 11),), "dropout_param { scale_train: false }", skip=RANDOM),
    Case(
        "Dropout", "vanilla_test", ((2, 3, 5),), "dropout_param { dropout_ratio: 0.3 scale_train: false }", phase=TEST
    ),
    Case("Dropout", "ratio_one", ((2, 3, 5),), "dropout_param { dropout_ratio: 1 }"),
    Case("ELU", "default", ((2, 3, 5),)),
    Case("ELU", "alpha", ((3, 7),), "elu_param { alpha: 0.3 }"),
    Case("Exp", "default", ((2, 3, 5),)),
    Case("Exp", "base_scale_shift", ((5, 4),), "exp_param { base: 1.5 scale: -0.5 shift: 0.75 }"),
    Case("Exp", "base_one", ((5, 3),), "exp_param { base: 1 }"),
    Case("Log", "default", (positive(2, 3, 5),)),
    Case("Log", "base_scale_shift", ((5, 4),), "log_param { base: 10 scale: -0.5 shift: 3 }"),
    Case("PReLU", "channel", ((2, 3, 5, 7),)),
    Case("PReLU", "shared_five_axes", ((2, 3, 2, 4, 2),), "prelu_param { channel_shared: true }"),
    Case("PReLU", "two_axes", ((5, 3),)),
    Case("PReLU", "shared", ((3, 5, 2),), "prelu_param { channel_shared: true }"),
    Case("Power", "default", ((2, 3, 5),)),
    Case("Power", "cube", ((3, 7),), "power_param { power: 3 scale: 0.5 shift: -0.3 }"),
    Case("Power", "root", ((2, 7),), "power_param { power: 0.5 scale: 2 shift: 5 }"),
    Case("Power", "scale_zero", ((5, 3),), "power_param { power: 3 shift: 2 scale: 0 }"),
    Case("Power", "power_zero", ((5, 2),), "power_param { power: 0 shift: 2 scale: 3 }"),
    Case("ReLU", "default", ((2, 3, 5, 7),)),
    Case("ReLU", "slope", ((3, 7),), "relu_param { negative_slope: 0.1 }"),
    Case("Sigmoid", "default", ((2, 3, 5),)),
    Case("Swish", "default", ((2, 3, 5),)),
    Case("Swish", "beta", ((3, 7),), "swish_param { beta: 1.5 }"),
    Case("TanH", "default", ((2, 3, 5),)),
    Case("Threshold", "value", ((2, 3, 5),), "threshold_param { threshold: 0.5 }"),
]
