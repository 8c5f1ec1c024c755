"""Cases of caffe.layers.input."""

from tests.layers.case import Case

ELSEWHERE = {"Input": "tests/layers/test_quirks_shape.py"}
CASES = [Case("Parameter", "default", (), "parameter_param { shape { dim: 2 dim: 3 dim: 5 } }")]
