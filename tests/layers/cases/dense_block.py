"""Cases of caffe.layers.dense_block."""

from caffe.proto.caffe_pb2 import TEST
from tests.layers.case import Case

ELSEWHERE: dict[str, str] = {}
PLAIN = "numTransition: 2 growthRate: 1 Filter_Filler { type: 'msra' } BN_Scaler_Filler { value: 1 }"
CASES = [
    Case("DenseBlock", "plain", ((3, 2, 4, 5),), f"denseblock_param {{ {PLAIN} }}"),
    Case("DenseBlock", "bottleneck", ((4, 3, 5, 4),), f"denseblock_param {{ {PLAIN} use_BC: true }}"),
    Case("DenseBlock", "test", ((2, 3, 4, 5),), f"denseblock_param {{ {PLAIN} use_BC: true }}", phase=TEST),
]
