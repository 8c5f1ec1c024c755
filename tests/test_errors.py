"""Input that real Caffe rejects is rejected here with one clear error, and input that it accepts is accepted."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import caffe
from caffe.errors import CaffeError
from caffe.net import Net
from tests.conftest import reference, shared

# Cases that the original does not implement, and that work here; docs/porting.md lists them.
WORKS_HERE = {"pool_stochastic_cpu", "softmax_loss_two_tops", "softmax_loss_two_tops_weights"}
# Cases that the original accepts, although it then reads outside an array.
REFUSED_HERE = {"label_out_of_range"}


def rows() -> list:
    path = reference("golden", "errors.json")
    if not path.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"reference file not found at {path}"), id="missing")]
    return [pytest.param(row, id=row["id"]) for row in json.loads(path.read_text())]


def act(row: dict) -> None:
    """Run the action of a row in the working directory."""
    action, text = row["action"], row["prototxt"]
    phase = caffe.TRAIN if row["phase"] == "TRAIN" else caffe.TEST
    with open("net.prototxt" if not action.startswith("solver") else "solver.prototxt", "w") as file:
        file.write(text)
    for name, content in row.get("files", {}).items():
        with open(name, "w") as file:
            file.write(content)
    if action == "missing_net":
        Net("nowhere.prototxt", phase)
    elif action == "missing_weights":
        Net("net.prototxt", phase, weights="nowhere.caffemodel")
    elif action.startswith("solver"):
        solver = caffe.get_solver("solver.prototxt")
        if action == "solver_step":
            solver.step(1)
    else:
        net = Net("net.prototxt", phase)
        for name, values in row.get("inputs", {}).items():
            net.blobs[name].data[...] = np.asarray(values).reshape(net.blobs[name].shape)
        if action.startswith("forward"):
            net.forward()
        if action == "forward_backward":
            net.backward()


@pytest.mark.parametrize("row", rows())
def test_reference_row(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    accepted = row["status"] == "accepted" or row["id"] in WORKS_HERE
    if accepted and row["id"] not in REFUSED_HERE:
        act(row)
        return
    with pytest.raises(CaffeError) as caught:
        act(row)
    message = str(caught.value)
    assert 10 < len(message) < 1200, message
    if row["action"] == "net" and 'name: "l"' in row["prototxt"] and "Failed to parse" not in row["text"]:
        assert 'layer "l"' in message or '"l1"' in message or "net.prototxt" in message, message


def test_reference_rows_are_all_here():
    assert len(json.loads(shared("golden", "errors.json").read_text())) >= 99


def test_an_error_holds_its_place(tmp_path):
    net, solver = tmp_path / "net.prototxt", tmp_path / "solver.prototxt"
    net.write_text('name: "n"\n\nlayer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" }\n')
    with pytest.raises(CaffeError) as caught:
        caffe.Net(str(net), caffe.TEST)
    assert (caught.value.path, caught.value.line) == (str(net), 3)
    net.write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 } } }\n'
        'layer { name: "pool" type: "Pooling" bottom: "x" top: "y" pooling_param { kernel_size: 2 } }\n'
    )
    with pytest.raises(CaffeError) as caught:
        caffe.Net(str(net), caffe.TEST)
    assert (caught.value.layer, caught.value.path, caught.value.line) == ("pool", str(net), 2)
    net.write_text('layer { name: "x" type: "Input" top: "x"\n input_parm { } }\n')
    with pytest.raises(CaffeError) as caught:
        caffe.Net(str(net), caffe.TEST)
    assert (caught.value.layer, caught.value.path, caught.value.line) == ("x", str(net), 2)
    solver.write_text(f'net: "{net}"\nlr_policy: "fixed"\nmax_iter: -3\n')
    with pytest.raises(CaffeError) as caught:
        caffe.get_solver(str(solver))
    assert (caught.value.path, caught.value.line) == (str(solver), 3)


def test_an_error_holds_the_shape_that_does_not_fit(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text('layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }\n')
    net = caffe.Net(str(path), caffe.TEST)
    for shape in ((2, 5), (7, 3)):
        with pytest.raises(CaffeError) as caught:
            net.forward(x=np.zeros(shape))
        assert caught.value.shape == shape
        assert caught.value.reworded("text").shape == shape
    with pytest.raises(CaffeError) as caught:
        net.module(x=torch.zeros(2, 3, 5))
    assert caught.value.shape == (2, 3, 5)
