"""The tests of the layers of caffe.layers.data_memory, which are sources and sinks without gradients."""

from tests.layers.case import Case

ELSEWHERE = dict.fromkeys(("DummyData", "HDF5Output", "MemoryData"), "tests/layers/test_data_memory.py")
CASES: list[Case] = []
