"""Cases of caffe.layers.python."""

from tests.layers.case import Case

ELSEWHERE = {"Python": "tests/layers/test_python.py"}
CASES: list[Case] = []
