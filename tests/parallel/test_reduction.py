"""Gradients are sent in buckets, most of them before backward ends."""

from __future__ import annotations

from caffe.net import Net
from caffe.parallel.group import Alone
from caffe.proto import caffe_pb2, text
from caffe.solver.reduction import Reduction

# conv1 and conv2 have few weights, and most of the time of backward; ip1 has 1.3 MB of weights
LENET = """
layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 1 dim: 1 dim: 28 dim: 28 }
  shape { dim: 1 } } }
layer { name: "conv1" type: "Convolution" bottom: "x" top: "conv1" convolution_param { num_output: 20 kernel_size: 5 } }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2" convolution_param { num_output: 50
  kernel_size: 9 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "conv2" top: "ip1" inner_product_param { num_output: 100 } }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" inner_product_param { num_output: 10 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "y" top: "loss" }
"""


class Two(Alone):
    """A group of two processes with equal gradients, which records the sizes of the buckets."""

    size = 2

    def __init__(self):
        self.sent = []

    def start_sum(self, values):
        self.sent.append(values.numel())
        values.mul_(2)
        return super().start_sum(values)


def test_large_gradients_are_sent_before_the_first_layers_have_run_backward():
    net = Net(text.parse(LENET, caffe_pb2.NetParameter()), caffe_pb2.TRAIN, device="cpu")
    group = Two()
    reduction = Reduction(group, net)
    reduction.arm()
    net.forward_backward()
    weights = {entry.layer: entry.tensor.numel() for entry in net.learnable if entry.index == 0}
    assert sum(group.sent) >= weights["ip2"] + weights["ip1"]
    early = sum(group.sent)
    reduction.run([1.0])
    assert sum(group.sent) * 4 == reduction.bytes
    assert sum(group.sent) - early <= 1 << 18
    net.close()
