"""`caffe gradcheck`: relative errors, element by element."""

from __future__ import annotations

import re

import pytest

from caffe import layers as layers  # fills the registry
from caffe.cli import main
from tests.layers.cubes import CUBES

DATA = """layer { name: "d" type: "DummyData" top: "data" dummy_data_param {
  shape { dim: 3 dim: 2 dim: 5 dim: 7 } data_filler { type: "gaussian" } } }
"""
NET = (
    DATA
    + """
layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 3 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 4 kernel_size: 3
  weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "c" top: "r" }
layer { name: "ip" type: "InnerProduct" bottom: "r" top: "ip" inner_product_param { num_output: 5
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "t" top: "l" }
"""
)
OWN = """
from caffe.layers import Layer
class One(Layer, options={}):
    def forward(self, x):
        y = x.square()
        change = x.new_zeros(x.shape)
        change.view(-1)[7] = 0.5 * AMOUNT
        return y + change * (x - x.detach())
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, own_types):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def run(capsys, *flags):
    code = main(["gradcheck", "net.prototxt", *flags, "-minloglevel", "2"])
    return code, capsys.readouterr()


def test_a_net_that_is_right(folder, capsys):
    (folder / "net.prototxt").write_text(NET)
    code, output = run(capsys)
    assert code == 0
    assert re.search(r"conv +Convolution +weight +13 of 72 +\d\.\de-\d\d +right", output.out)
    assert re.search(r"ip +InnerProduct +bias +5 of 5 ", output.out)
    assert "none is wrong" in output.out
    assert "WRONG" not in output.out


def test_one_layer_and_all_of_its_elements(folder, capsys):
    (folder / "net.prototxt").write_text(NET)
    code, output = run(capsys, "-layer", "conv", "-elements", "0")
    assert code == 0
    assert re.search(r"conv +Convolution +weight +72 of 72 ", output.out)
    assert "ip " not in output.out
    code, output = run(capsys, "-layer", "convv")
    assert code == 1
    assert 'has no layer "convv"; did you mean "conv"?' in output.err
    assert run(capsys, "-elements", "-3")[0] == 1


CASES = [("Cube", 0, "right"), ("Wrong", 1, "WRONG"), ("Nearly", 1, "SUSPICIOUS")]


@pytest.mark.parametrize(("name", "code", "reading"), CASES)
def test_python_layers(folder, capsys, name, code, reading):
    (folder / "cubes.py").write_text(CUBES)
    options = f'python_param {{ module: "cubes" layer: "{name}" }}'
    layer = f'layer {{ name: "own" type: "Python" bottom: "data" top: "y" {options} }}'
    (folder / "net.prototxt").write_text(DATA + layer)
    found, output = run(capsys)
    assert found == code
    assert re.search(rf"own +Python +bottom 0 .* {reading}", output.out)


def test_a_single_wrong_element_is_found(folder, capsys):
    for amount, code in (("0", 0), ("1e-1", 1)):
        one = f'layer {{ name: "one" type: "One{code}" bottom: "data" top: "y" }}'
        (folder / f"one{code}.py").write_text(OWN.replace("One", f"One{code}").replace("AMOUNT", amount))
        (folder / "net.prototxt").write_text(DATA + one)
        assert run(capsys, "-elements", "0", "-import", f"one{code}.py")[0] == code


def test_kinks_are_counted(folder, capsys):
    bias = 'layer { name: "p" type: "Power" bottom: "data" top: "p" power_param { scale: 1e-7 } }'
    (folder / "net.prototxt").write_text(DATA + bias + 'layer { name: "relu" type: "ReLU" bottom: "p" top: "r" }')
    code, output = run(capsys, "-layer", "relu")
    assert code == 0
    assert "right" in output.out
