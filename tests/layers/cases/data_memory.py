"""Where the layers of caffe.layers.data_memory, sources and sinks without gradients, are tried."""

from tests.layers.case import Case

ELSEWHERE = dict.fromkeys(("DummyData", "HDF5Output", "MemoryData"), "tests/layers/test_data_memory.py")
CASES: list[Case] = []
