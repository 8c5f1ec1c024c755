"""-precision of `caffe train`, `test` and `time`."""

from __future__ import annotations

import re

import pytest
import torch

from caffe.cli import main
from caffe.net import Net


@pytest.fixture
def nets(noise, monkeypatch):
    """The list of the precisions of all nets that were built."""
    seen = []
    build = Net.__init__

    def note(self, *args, **kwargs):
        build(self, *args, **kwargs)
        seen.append(self.precision)

    monkeypatch.setattr(Net, "__init__", note)
    return seen


def test_training_takes_the_flag_over_the_file(noise, nets, capsys):
    assert main(["train", "-solver", "solver.prototxt", "--precision", "bf16"]) == 0
    assert nets == [torch.bfloat16] * 2
    err = capsys.readouterr().err
    assert "precision: BFLOAT16" in err
    assert "Optimization Done." in err
    with open("solver.prototxt", "a") as file:
        file.write("precision: BFLOAT16")
    nets.clear()
    assert main(["train", "-solver", "solver.prototxt"]) == 0
    assert nets == [torch.bfloat16] * 2
    nets.clear()
    assert main(["train", "-solver", "solver.prototxt", "-precision=fp32"]) == 0
    assert nets == [torch.float32] * 2


def test_scores_are_near_those_of_float32(noise, nets, capsys):
    assert main(["train", "-solver", "solver.prototxt"]) == 0
    capsys.readouterr()

    def loss(*more: str) -> float:
        argv = ["test", "-model", "net.prototxt", "-weights", "noise_iter_8.caffemodel", "-iterations", "40", *more]
        assert main(argv) == 0
        return float(re.search(r"Loss: (\S+)", capsys.readouterr().err)[1])

    exact = loss()
    nets.clear()
    assert loss("-precision", "bf16") == pytest.approx(exact, rel=0.1)
    assert nets == [torch.bfloat16]


def test_timing(noise, nets):
    assert main(["time", "-model", "net.prototxt", "-iterations", "1", "-precision", "bf16"]) == 0
    assert nets == [torch.bfloat16]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("fp8", "-precision fp8: expected fp32, bf16 or fp16"),
        ("bf61", 'did you mean "bf16"'),
        ("fp16", "FLOAT16 needs a GPU, and the net is on the device cpu"),
    ],
)
@pytest.mark.parametrize("command", [["train", "-solver", "solver.prototxt"], ["time", "-model", "net.prototxt"]])
def test_what_cannot_be_had_is_one_error(noise, capsys, command, value, says):
    assert main([*command, "-precision", value]) == 1
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err
