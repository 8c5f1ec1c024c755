"""The upgrade tools, compared with the files and messages of the reference tools."""

from __future__ import annotations

import json
import shutil

import pytest
from google.protobuf import text_format

from caffe.cli import main
from caffe.proto import caffe_pb2
from tests.cli.test_reference_logs import difference, lines
from tests.conftest import our_commands, reference, shared


def cases():
    path = reference("golden", "upgrade", "upgrade.json")
    if not path.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"reference files not found at {path}"), id="missing")]
    return list(json.loads(path.read_text()))


def content(path, tool):
    """Return the message in a file."""
    if tool == "upgrade_net_proto_binary":
        return caffe_pb2.NetParameter.FromString(path.read_bytes())
    message = caffe_pb2.SolverParameter() if "solver" in tool else caffe_pb2.NetParameter()
    return text_format.Parse(path.read_text(), message)


@pytest.mark.parametrize("name", cases())
def test_as_the_reference_tool(name, tmp_path, monkeypatch, capsys):
    folder = shared("golden", "upgrade")
    expected = json.loads((folder / "upgrade.json").read_text())[name]
    tool, suffix = expected["tool"], "caffemodel" if name.startswith("model") else "prototxt"
    source, target = f"{name}.in.{suffix}", f"{name}.out.{suffix}"
    shutil.copy(folder / source, tmp_path)
    monkeypatch.chdir(tmp_path)
    code = main([tool, source, target])
    out, err = capsys.readouterr()
    assert (code, out) == (int(expected["rc"] != 0), ""), err
    assert (tmp_path / target).exists() == expected["output"]
    if expected["output"]:
        assert content(tmp_path / target, tool) == content(folder / target, tool)
        assert difference(lines(err), lines(our_commands(expected["stderr"]))) is None
    else:
        assert len(err.partition("caffe: error: ")[2].splitlines()) == 1
        assert sorted(path.name for path in tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("tool", ["upgrade_net_proto_text", "upgrade_net_proto_binary", "upgrade_solver_proto_text"])
@pytest.mark.parametrize("given", [None, b"", b"\x0a\x03abc\x12\xff", b"nonsense { "])
def test_what_cannot_be_read_is_one_error_and_no_file(tool, given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if given is not None:
        (tmp_path / "in").write_bytes(given)
    if not given and given is not None and tool.endswith("text"):
        pytest.skip("an empty text is an empty message")
    assert main([tool, "in", "out"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("caffe: error: ")
    assert len(err.splitlines()) <= 2
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").write_text('layers { name: "r" type: RELU bottom: "x" top: "y" }')
    assert main(["upgrade_net_proto_text", "in", "no/out"]) == 1
    assert "no/out" in capsys.readouterr().err


FORK = """
bn_stats_batch_size: 4
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: [1, 4, 9, 9] } } }
layer { name: "dw" type: "DepthwiseConvolution" bottom: "x" top: "dw" convolution_param {
  num_output: 4 kernel_size: 3 hole: 2 engine: MKLDNN } quantization_param { bw_layer_in: 8 } }
layer { name: "r6" type: "ReLU6" bottom: "dw" top: "dw" }
layer { name: "pool" type: "Pooling" bottom: "dw" top: "p" pooling_param { kernel_size: 2 stride: 2 ceil_mode: false } }
"""
PERMUTED = 'layer { name: "perm" type: "Permute" bottom: "p" top: "y" permute_param { order: [0, 2, 3, 1] } }'


def test_a_net_of_a_fork_becomes_one_of_bvlc(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.prototxt").write_text(FORK)
    assert main(["upgrade", "in.prototxt", "out.prototxt"]) == 0
    said = capsys.readouterr().out
    assert (
        "without effect, removed: engine: MKLDNN (Intel's Caffe), quantization_param (Intel's Caffe), bn_stats" in said
    )
    assert "rewritten: DepthwiseConvolution as Convolution, ReLU6 as Clip" in said
    made = text_format.Parse((tmp_path / "out.prototxt").read_text(), caffe_pb2.NetParameter())
    conv, clip, pool = made.layer[1:]
    assert (conv.type, conv.convolution_param.group, list(conv.convolution_param.dilation)) == ("Convolution", 4, [2])
    assert (clip.type, clip.clip_param.min, clip.clip_param.max) == ("Clip", 0, 6)
    assert pool.pooling_param.round_mode == caffe_pb2.PoolingParameter.FLOOR
    (tmp_path / "in.prototxt").write_text(FORK + PERMUTED)
    assert main(["upgrade", "in.prototxt", "out.prototxt"]) == 1
    said = capsys.readouterr().out
    assert 'not in BVLC Caffe, kept: layer type "Permute", permute_param (SSD)' in said
    assert "BVLC Caffe cannot run it" in said


def test_a_solver_of_a_fork_loses_what_has_no_effect(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.prototxt").write_text('net: "n" base_lr: 1 richness: 3 solver_type: ADAM')
    assert main(["upgrade", "in.prototxt", "out.prototxt"]) == 0
    made = text_format.Parse((tmp_path / "out.prototxt").read_text(), caffe_pb2.SolverParameter())
    assert made == caffe_pb2.SolverParameter(net="n", base_lr=1, type="Adam")
    (tmp_path / "in.prototxt").write_text('net: "n" base_lr: 1 eval_type: "detection"')
    assert main(["upgrade", "in.prototxt", "out.prototxt"]) == 1
    assert "not in BVLC Caffe, kept: eval_type (SSD)" in capsys.readouterr().out
