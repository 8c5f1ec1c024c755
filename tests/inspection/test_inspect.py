"""`caffe inspect`: the kind of a file, and the version of Caffe that it was written for."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

import caffe
from caffe.cli import main
from caffe.errors import CaffeError
from caffe.inspection import inspect
from caffe.proto import caffe_pb2, state, text, weights, wire

DATA = """
name: "small"
layer {
  name: "data" type: "AnnotatedData" top: "data" top: "label" include { phase: TRAIN }
  data_param { source: "nowhere_lmdb" batch_size: 4 }
  transform_param { resize_param { height: 20 width: 30 } }
}
"""
NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [2, 3, 8, 8] } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 5 kernel_size: 3 } }
"""
PERMUTED = 'layer { name: "perm" type: "Permute" bottom: "data" top: "y" permute_param { order: [0, 2, 3, 1] } }'


def written(tmp_path: Path, content: str, name: str = "net.prototxt") -> str:
    path = tmp_path / name
    path.write_text(content)
    return str(path)


def test_a_net_of_bvlc_with_shapes_parameters_and_arithmetic(tmp_path):
    report = inspect(written(tmp_path, NET))
    found = report.as_dict()
    assert found["origin"] == []
    assert found["facts"]["made by"].startswith("BVLC Caffe")
    assert found["facts"]["parameters"].startswith("140 ")
    conv = found["layers"][1]
    assert (conv["tops"], conv["parameters"]) == ("conv (2, 5, 6, 6)", "140")
    assert float(conv["MFLOP"]) == pytest.approx(2 * 2 * 5 * 36 * 27 / 1e6, abs=0.005)
    assert found["needs"] == ["data: set by the caller, (2, 3, 8, 8)"]
    assert found["unsupported"] == []


def test_a_net_of_a_fork_without_its_data(tmp_path):
    report = inspect(written(tmp_path, DATA + PERMUTED))
    assert report.origin[0][:2] == ("SSD", "sure")
    assert {"resize_param", "permute_param", "Permute"} <= set(report.origin[0][2])
    assert '"data" (AnnotatedData) in TRAIN: nowhere_lmdb' in report.needs
    assert '"data": shapes assume 3 channels of 20 x 30' in report.needs
    assert report.as_dict()["layers"][-1]["tops"] == "y (4, 20, 30, 3)"
    assert report.as_dict()["layers"][0]["type"] == "AnnotatedData"


def test_what_is_not_supported_comes_with_the_way_out(tmp_path):
    pool = 'layer { name: "a" type: "Pooling" bottom: "data" top: "a" pooling_param { axis: 2 kernel_size: 1 } }'
    crf = 'layer { name: "crf" type: "CustomData" top: "b" }'
    report = inspect(written(tmp_path, NET + pool + crf))
    said = "\n".join(report.unsupported)
    assert "pooling_param.axis comes from a fork of Caffe (the opencl branch of BVLC Caffe)" in said
    assert 'layer "crf": layer type "CustomData" comes from a fork of Caffe (FlowNet 2)' in said
    assert [row["layer"] for row in report.as_dict()["layers"]] == ["data", "conv", "a", "crf"]


def test_a_label_gets_the_shape_that_its_reader_expects(tmp_path):
    data = 'layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "x" batch_size: 2 } }'
    conv = NET.splitlines()[-1].replace("num_output: 5", "num_output: 4").replace('"conv"', '"c"')
    for loss, shape in (("SoftmaxWithLoss", "2 x 1 x 222 x 222"), ("EuclideanLoss", "2 x 4 x 222 x 222")):
        end = f'layer {{ name: "end" type: "{loss}" bottom: "c" bottom: "label" top: "l" }}'
        report = inspect(written(tmp_path, data + conv + end))
        assert report.unsupported == []
        assert f'"label": a shape of {shape} is assumed, which "end" accepts' in report.needs


def test_every_phase_that_has_its_data_must_build(tmp_path):
    test = PERMUTED[:-1] + "include { phase: TEST } }"
    report = inspect(written(tmp_path, NET + test.replace("3, 1]", "3, 9]")))
    assert dict(report.facts)["built as"] == "TRAIN"
    (reason,) = report.unsupported
    assert reason.startswith("in TEST it cannot be built")
    report = inspect(written(tmp_path, DATA + PERMUTED.replace("3, 1]", "3, 9]")))
    (reason,) = report.unsupported
    assert reason.startswith("in TRAIN it cannot be built")


def test_a_net_that_is_too_large_for_the_machine_is_described(tmp_path, monkeypatch):
    monkeypatch.setattr("caffe.limits.memory_limit", lambda: 1 << 20)
    wide = (
        'layer { name: "w" type: "InnerProduct" bottom: "data" top: "w" inner_product_param { num_output: 5000000 } }'
    )
    report = inspect(written(tmp_path, NET + wide))
    assert report.unsupported == []
    assert dict(report.facts)["parameters"].startswith("965,000,140 ")


@pytest.mark.parametrize("kind", ["BatchNorm", "BN"])
def test_normalization_of_one_value_per_channel(tmp_path, kind):
    options = "bn_param { frozen: false }" if kind == "BN" else ""
    one = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 3, 1, 1] } } }'
    norm = f'layer {{ name: "n" type: "{kind}" bottom: "x" top: "n" {options} include {{ phase: TRAIN }} }}'
    assert inspect(written(tmp_path, one + norm)).unsupported == []


def test_python_layers_are_left_out(tmp_path):
    python = 'layer { name: "p" type: "Python" bottom: "conv" top: "p" python_param { module: "m" layer: "L" } }'
    after = 'layer { name: "r" type: "ReLU" bottom: "p" top: "r" }'
    report = inspect(written(tmp_path, NET + python + after))
    assert report.unsupported == []
    assert "not measured, because it depends on Python code: p, r" in report.needs
    assert '"p": Python module m' in report.needs


def test_fields_without_effect_and_old_formats_are_reported(tmp_path):
    old = 'input: "x" input_dim: [1, 2, 4, 4] layers { name: "r" type: RELU bottom: "x" top: "y" }'
    assert "V1" in dict(inspect(written(tmp_path, old)).facts)["format"]
    report = inspect(written(tmp_path, NET + "bn_stats_batch_size: 8"))
    assert report.without_effect == ["bn_stats_batch_size (Intel's Caffe)"]


def test_a_solver(tmp_path):
    solver = 'net: "n.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 9 eval_type: "detection"'
    report = inspect(written(tmp_path, solver))
    assert report.kind == "a solver's definition"
    assert report.origin == [("SSD", "possible", ["eval_type"])]
    assert report.needs == ["net: n.prototxt"]


def test_weights_states_and_means(tmp_path):
    net = caffe.Net(text.parse(NET, caffe_pb2.NetParameter()), caffe.TEST)
    model, binary, mean = (str(tmp_path / name) for name in ("m.caffemodel", "s.solverstate", "mean.binaryproto"))
    net.save(model)
    report = inspect(model)
    assert report.as_dict()["layers"][0] == {
        "layer": "conv",
        "type": "Convolution",
        "blobs": "5 x 3 x 3 x 3, 5",
        "parameters": "140",
    }
    state.write(binary, caffe_pb2.SolverState(iter=7, learned_net=model), [np.zeros((2, 3), np.float32)])
    assert dict(inspect(binary).facts)["history"] == "1 arrays, 6 values"
    weights.write_mean(mean, np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1))
    assert dict(inspect(mean).facts)["as options"] == "mean_value: 1 mean_value: 2 mean_value: 3"


def test_hdf5_weights_and_arrays(tmp_path):
    path = str(tmp_path / "w.h5")
    weights.write_hdf5(path, {"ip": [np.zeros((2, 3), np.float32)]})
    assert inspect(path).kind == "a net's weights (HDF5)"
    other = str(tmp_path / "d.h5")
    with h5py.File(other, "w") as file:
        file["data"], file["label"] = np.zeros((4, 5)), np.zeros(4)
    assert inspect(other).as_dict()["layers"][0] == {"dataset": "data", "shape": "4 x 5"}


def _field(number: int, content: bytes) -> bytes:
    return wire.key(number, len(content)) + content


def test_onnx(tmp_path):
    node = _field(1, _field(4, b"Relu"))
    weight = _field(5, b"\x08\x02\x08\x03" + _field(8, b"w")) + _field(11, _field(1, b"w"))
    graph = node + node + weight + _field(11, _field(1, b"x")) + _field(12, _field(1, b"y"))
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x08\x08" + _field(2, b"pytorch") + _field(7, graph) + _field(8, b"\x10\x11"))
    facts = dict(inspect(str(path)).facts)
    assert (facts["made by"], facts["operators"], facts["parameters"]) == ("pytorch", "ai.onnx 17", "6")
    assert facts["inputs"] == "x"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CaffeError, match=r"is not an ONNX file, or is damaged or cut off"):
        inspect(str(path))


def test_the_command_writes_json_and_a_page(tmp_path, capsys):
    net, as_json, page = written(tmp_path, NET), tmp_path / "r.json", tmp_path / "r.html"
    assert main(["inspect", net, "-json", str(as_json), "-html", str(page)]) == 0
    assert "conv   Convolution" in capsys.readouterr().out
    assert json.loads(as_json.read_text())["facts"]["name"] == "small"
    assert capsys.readouterr().err == ""
    assert "<td>conv (2, 5, 6, 6)</td>" in page.read_text()


def test_other_files_are_an_error(tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(
        CaffeError, match=r"is an archive.*expected a prototxt, caffemodel, solverstate, mean, HDF5 or ONNX"
    ):
        inspect(str(path))
    with pytest.raises(CaffeError, match=r"net.prototxt:1"):
        inspect(written(tmp_path, "layer { nonsense: 1 }"))
