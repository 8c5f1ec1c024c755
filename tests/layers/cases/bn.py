"""Cases of caffe.layers.bn."""

from caffe.proto.caffe_pb2 import TEST
from tests.layers.case import Case

ELSEWHERE: dict[str, str] = {}
RATES = "param { lr_mult: 1 } param { lr_mult: 1 } param { lr_mult: 0 } param { lr_mult: 0 }"
CASES = [
    Case("BN", "segnet", ((3, 2, 4, 5),), "bn_param { bn_mode: LEARN }", phase=TEST),
    Case("BN", "segnet_inference", ((3, 2, 4, 5),), "bn_param { bn_mode: INFERENCE scale_filler { value: 1 } }"),
    Case("BN", "pspnet_train", ((3, 2, 4, 5),), "bn_param { momentum: 0.95 eps: 0.1 }"),
    Case("BN", "pspnet_one_value", ((1, 2, 1, 1),), "bn_param { momentum: 0.95 }"),
    Case("BN", "pspnet_frozen", ((3, 2, 4),), "bn_param { frozen: true }"),
    Case("BN", "pspnet_test", ((3, 2, 4, 5),), RATES, phase=TEST),
    Case("GRN", "default", ((2, 3, 5, 4),), "grn_param { bias: 0.5 }"),
    Case("ChannelNorm", "default", ((2, 3, 5, 4),)),
]
