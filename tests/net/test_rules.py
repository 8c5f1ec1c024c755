"""The layers that a NetState keeps, and the positions of automatic Split layers."""

from __future__ import annotations

import pytest

import caffe
from caffe.errors import CaffeError, NetError
from caffe.net.graph.rules import filter_net, insert_splits
from caffe.proto import caffe_pb2, text


def kept(state: str, rules: str) -> bool:
    """Return whether a layer with these rules is kept in this state."""
    net = text.parse(f'state {{ {state} }} layer {{ name: "a" type: "ReLU" {rules} }}', caffe_pb2.NetParameter())
    return bool(filter_net(net)[1])


@pytest.mark.parametrize(
    ("rule", "state", "met"),
    [
        ("phase: TEST", "phase: TEST", True),
        ("phase: TEST", "phase: TRAIN", False),
        ("min_level: 2", "level: 1", False),
        ("min_level: 2", "level: 2", True),
        ("min_level: 2", "level: 3", True),
        ("max_level: 2", "level: 1", True),
        ("max_level: 2", "level: 2", True),
        ("max_level: 2", "level: 3", False),
        ("min_level: 0 max_level: 0", "", True),
        ('stage: "s"', 'stage: "s" stage: "t"', True),
        ('stage: "s" stage: "t"', 'stage: "s"', False),
        ('stage: "s"', "", False),
        ('not_stage: "s"', "", True),
        ('not_stage: "s"', 'stage: "t"', True),
        ('not_stage: "s"', 'stage: "t" stage: "s"', False),
        ('not_stage: "s" not_stage: "t"', 'stage: "t"', False),
        ('phase: TEST stage: "s"', 'phase: TEST stage: "t"', False),
        ("", "", True),
    ],
)
def test_a_rule_is_met_where_all_its_parts_are(rule, state, met):
    assert kept(state, f"include {{ {rule} }}") is met
    assert kept(state, f"exclude {{ {rule} }}") is not met


def test_one_of_several_rules_is_enough():
    rules = 'include { stage: "s" } include { max_level: 1 }'
    assert kept('stage: "s" level: 5', rules)
    assert kept("level: 1", rules)
    assert not kept("level: 5", rules)
    assert not kept("level: 1", rules.replace("include", "exclude"))


def test_include_and_exclude_together_are_refused():
    with pytest.raises(NetError, match="has include and exclude rules"):
        kept("", "include { phase: TEST } exclude { phase: TRAIN }")


@pytest.mark.parametrize(
    ("weight", "readers", "splits"),
    [(None, 1, 0), (None, 2, 1), (0, 1, 0), (0, 2, 1), (3, 0, 0), (3, 1, 1), (-1, 1, 1)],
)
def test_a_loss_weight_counts_as_a_reader_unless_it_is_0(weight, readers, splits):
    given = "" if weight is None else f"loss_weight: {weight}"
    net = 'layer { name: "i" type: "Input" top: "x" }'
    net += f'layer {{ name: "m" type: "Power" bottom: "x" top: "m" {given} }}'
    for number in range(readers):
        net += f'layer {{ name: "r{number}" type: "ReLU" bottom: "m" top: "r{number}" }}'
    made = insert_splits(text.parse(net, caffe_pb2.NetParameter()))
    assert sum(layer.type == "Split" for layer in made.layer) == splits


SHARED = """
layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" inner_product_param { num_output: 3 bias_term: false }
  param { name: "w" %s } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" inner_product_param { num_output: 3 bias_term: false }
  param { name: "w" %s } }
"""


@pytest.mark.parametrize("field", ["lr_mult", "decay_mult"])
def test_layers_that_share_a_parameter_must_agree_on_its_multipliers(field, tmp_path):
    def learnable(first: str, second: str) -> float:
        (tmp_path / "n.prototxt").write_text(SHARED % (first, second))
        (entry,) = caffe.Net(str(tmp_path / "n.prototxt"), caffe.TRAIN).learnable
        return getattr(entry, field)

    assert learnable("", "") == 1
    assert learnable(f"{field}: 3", "") == 3
    assert learnable("", f"{field}: 3") == 3
    assert learnable(f"{field}: 3", f"{field}: 3") == 3
    with pytest.raises(CaffeError, match=f'layer "b" .*shared param \'w\' has {field} 1, but its owner, layer "a"'):
        learnable(f"{field}: 3", f"{field}: 1")
