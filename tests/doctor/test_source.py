"""Edits of a prototxt keep the surrounding text unchanged."""

from __future__ import annotations

from caffe.proto.source import Source

NET = """# a net
name: "one"  # its name
layer {
  name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  param { lr_mult: 1 } param { lr_mult: 2 }
  inner_product_param {
    num_output: 10  # ten
    weight_filler { type: "gaussian" std: -.5 }
  }
}
layer { name: "relu" type: "ReLU" bottom: "ip" top: "ip" } # in place
"""


def source(text=NET):
    return Source("net.prototxt", text)


def test_a_field_is_found_with_its_line():
    net = source()
    ip = net.layers()[0]
    entry = net.find(ip, "param[1].lr_mult")
    assert (net.text[entry.value : entry.end], net.line(entry.start)) == ("2", 5)
    entry = net.find(ip, "inner_product_param.weight_filler.std")
    assert (net.text[entry.value : entry.end], net.line(entry.start)) == ("-.5", 8)
    assert net.find(ip, "param[2].lr_mult") is None
    assert net.line(net.layers()[1].start) == 11


def test_a_value_is_replaced_in_place():
    net = source()
    net.set(net.layers()[0], "inner_product_param.num_output", "20")
    assert net.text == NET.replace("num_output: 10", "num_output: 20")
    net.set(net.layers()[0], "inner_product_param.weight_filler", '{ type: "xavier" }')
    assert 'weight_filler { type: "xavier" }\n' in net.text


def test_a_missing_field_is_added_inside_its_message():
    net = source()
    net.set(net.layers()[0], "inner_product_param.bias_filler.value", "0.5")
    assert net.text == NET.replace("std: -.5 }\n", "std: -.5 }\n    bias_filler { value: 0.5 }\n")
    net.set(net.layers()[1], "relu_param.negative_slope", "0.1")
    assert 'top: "ip" relu_param { negative_slope: 0.1 } } # in place' in net.text
    net.set(None, "force_backward", "true")
    assert net.text.endswith("# in place\nforce_backward: true\n")


def test_a_second_message_of_a_repeated_field_is_added():
    net = source()
    net.set(net.layers()[1], "param[1].lr_mult", "0")
    assert "param { } param { lr_mult: 0 } }" in net.text


def test_a_block_is_removed_with_its_lines():
    net = source()
    net.remove(net.layers()[0])
    assert net.text == NET[: NET.index("layer {")] + NET[NET.index('layer { name: "relu"') :]


def test_the_first_field_of_a_file_is_found():
    source = Source("x.prototxt", "base_lr: 0.5\nnet: 'a'\n")
    entry = source.find(None, "base_lr")
    assert source.text[entry.start : entry.end] == "base_lr: 0.5"
    assert [entry.name for entry in Source("x.prototxt", 'layer { name: "a" }\nlayer { }').layers()] == ["layer"] * 2
