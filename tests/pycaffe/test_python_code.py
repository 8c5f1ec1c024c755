"""Layers of the type Python can be rejected before their module is imported.

Commands that only read a net import nothing.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

import caffe
import caffe.torch
from caffe import python_code
from caffe.cli import main
from caffe.errors import NetError
from caffe.solver import Solver, get_solver

NET = """layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 5 dim: 7 } } }
layer { name: "mine" type: "Python" bottom: "data" top: "mine"
  python_param { module: "module_with_effect" layer: "Mine" } }
layer { name: "ip" type: "InnerProduct" bottom: "mine" top: "ip" inner_product_param { num_output: 2 } }
"""
MODULE = """
from pathlib import Path
import caffe
with Path("imported").open("a") as file:
    file.write("x")

class Mine(caffe.Layer):
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data
"""
REFUSED = (
    r'^net.prototxt:2: layer "mine" \(Python\) would run the class "Mine" of the module "module_with_effect", but '
    r"Python layers are switched off .* nothing was imported"
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CAFFE_PYTHON_LAYERS", raising=False)
    Path("net.prototxt").write_text(NET)
    Path("module_with_effect.py").write_text(MODULE)
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 1 lr_policy: "fixed" max_iter: 1 solver_mode: CPU snapshot_after_train: false'
    )
    yield
    sys.modules.pop("module_with_effect", None)


def imported() -> bool:
    return Path("imported").exists()


@pytest.mark.parametrize(
    "make",
    [
        lambda: caffe.Net("net.prototxt", caffe.TEST, python_layers=False),
        lambda: Solver("solver.prototxt", python_layers=False),
        lambda: get_solver("solver.prototxt", python_layers=False),
        lambda: caffe.SGDSolver("solver.prototxt", python_layers=False),
        lambda: caffe.Classifier("net.prototxt", None, python_layers=False),
        lambda: caffe.Detector("net.prototxt", None, python_layers=False),
    ],
    ids=["Net", "Solver", "get_solver", "SGDSolver", "Classifier", "Detector"],
)
def test_refused_before_anything_is_imported(make):
    with pytest.raises(NetError, match=REFUSED):
        make()
    assert not imported()


def test_refused_by_the_module_for_torch():
    with pytest.raises(NetError, match=r'layer "mine" .* nothing was imported'):
        caffe.torch.load("net.prototxt", python_layers=False)
    assert not imported()


def test_refused_by_the_environment_unless_the_net_allows_it(monkeypatch):
    monkeypatch.setenv("CAFFE_PYTHON_LAYERS", "0")
    with pytest.raises(NetError, match=REFUSED):
        caffe.Net("net.prototxt", caffe.TEST)
    assert not imported()
    caffe.Net("net.prototxt", caffe.TEST, python_layers=True)
    assert imported()


def test_refused_where_a_test_net_has_one():
    Path("train.prototxt").write_text(
        'layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 2 } } }'
    )
    Path("solver.prototxt").write_text(
        'train_net: "train.prototxt" test_net: "net.prototxt" test_iter: 1 test_interval: 1\n'
        'base_lr: 1 lr_policy: "fixed"'
    )
    with pytest.raises(NetError, match=REFUSED):
        Solver("solver.prototxt", python_layers=False)
    assert not imported()


@pytest.mark.parametrize(
    "words",
    [
        ["train", "-solver", "solver.prototxt"],
        ["time", "-model", "net.prototxt", "-iterations", "1"],
        ["check", "net.prototxt"],
        ["summarize", "net.prototxt"],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("flag", ["--no-python-layers", "-nopython_layers", "--python_layers=false"])
def test_refused_by_every_command(words, flag, capfd):
    code = main([*words, flag, "-minloglevel", "2"])
    lines = capfd.readouterr().err.splitlines()
    assert not imported()
    if words[0] != "summarize":
        assert code == 1
        assert len(lines) == 1
        assert "layers are switched off" in lines[0]
    assert python_code.allowed()


def test_the_flag_lasts_for_the_command_only(capfd):
    assert main(["time", "-model", "net.prototxt", "-iterations", "1", "--no-python-layers"]) == 1
    assert main(["time", "-model", "net.prototxt", "-iterations", "1", "-phase", "TEST"]) == 0
    assert imported()


@pytest.mark.parametrize(
    "words",
    [
        ["draw", "net.prototxt", "net.svg"],
        ["layers"],
        ["layers", "Python"],
        ["upgrade_net_proto_text", "net.prototxt", "new.prototxt"],
        ["summarize", "net.prototxt"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_commands_that_look_import_nothing(words, capfd):
    main(words)
    assert "Unknown action" not in capfd.readouterr().err
    assert not imported()


def test_a_module_is_imported_once_for_all_nets():
    for _ in range(2):
        caffe.Net("net.prototxt", caffe.TEST)
    assert Path("imported").read_text() == "x"


def test_the_running_script_is_not_run_a_second_time():
    Path("module_with_effect.py").write_text(
        MODULE + '\nif __name__ == "__main__":\n    net = caffe.Net("net.prototxt", caffe.TEST)\n    net.forward()\n'
    )
    runpy.run_path("module_with_effect.py", run_name="__main__")
    assert Path("imported").read_text() == "x"
