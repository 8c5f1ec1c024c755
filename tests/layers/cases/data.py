"""Where the layers of caffe.layers.data, which need files, are tried."""

from tests.layers.case import Case

ELSEWHERE = dict.fromkeys(("Data", "HDF5Data", "ImageData", "WindowData"), "tests/layers/test_data.py")
ELSEWHERE["ArrayData"] = "tests/layers/test_data_more.py"
CASES: list[Case] = []
