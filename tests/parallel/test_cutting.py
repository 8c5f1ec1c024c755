"""While a divided net is built, each process keeps its part of the blobs that a single process would fill."""

from __future__ import annotations

import pytest
import torch
from google.protobuf import text_format

from caffe.errors import ParallelError
from caffe.net import Net
from caffe.parallel.group import Alone
from caffe.proto import caffe_pb2
from caffe.solver.cutting import cut_while_building

NET = """
layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 6 dim: 90 } shape { dim: 6 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "x" top: "ip1" inner_product_param { num_output: 71
  weight_filler { type: "gaussian" } bias_filler { type: "uniform" } } }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" inner_product_param { num_output: 3
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "y" top: "loss" }
"""


class Second(Alone):
    """The second of two processes. The first has filled its blobs with values of the same sums, or of other sums."""

    rank, size = 1, 2
    same = True

    def gather(self, value):
        return [value if self.same else [0], value]


def built(options="", group=None, weights=""):
    solver = text_format.Parse(options + weights, caffe_pb2.SolverParameter())
    spec = text_format.Parse(NET, caffe_pb2.NetParameter())
    torch.manual_seed(3)
    with cut_while_building(solver, group or Alone(), spec):
        net = Net(spec, caffe_pb2.TRAIN, device="cpu")
    net.close()
    return [tensor.detach() for layer in net.layers for tensor in layer.tensors]


@pytest.mark.parametrize(("options", "cut"), [("shard: FULL", [0]), ("tensor_parallel: 2", [0, 1, 2, 3])])
def test_parts_are_those_of_the_values_of_one_process(options, cut):
    whole, parts = built(), built(options, Second())
    for index, (value, own) in enumerate(zip(whole, parts, strict=True)):
        first = -(-len(value) // 2) if index in cut else 0
        assert torch.equal(own, value[first:]), index


def test_weights_are_loaded_into_whole_blobs():
    shapes = [tuple(x.shape) for x in built("shard: FULL", Second(), weights=' weights: "w.caffemodel"')]
    assert shapes == [(71, 90), (71,), (3, 71), (3,)]


def test_processes_with_different_initial_values_raise_an_error():
    group = Second()
    group.same = False
    with pytest.raises(ParallelError, match="have filled the net with different values"):
        built("shard: FULL", group)
