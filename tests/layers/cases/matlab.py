"""The tests of the layers of caffe.layers.matlab, which write and read files."""

from tests.layers.case import Case

ELSEWHERE = dict.fromkeys(("MatRead", "MatWrite"), "tests/layers/test_matlab.py")
CASES: list[Case] = []
