"""`caffe layers`: the listing and the page of a type."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from google.protobuf import text_format

from caffe.cli import main
from caffe.errors import FileError
from caffe.layers import layer_class, layer_types
from caffe.proto import caffe_pb2
from tests.conftest import ROOT


def test_the_list_has_every_type_with_its_family(capsys):
    assert main(["layers"]) == 0
    out = capsys.readouterr().out
    for name in layer_types():
        family = layer_class(name).__module__.split(".")[2]
        assert re.search(rf"^{name} +{family} +\S", out, re.M), name
    assert f"\n{len(layer_types())} layer types" in out


def test_every_page_has_a_block_that_can_be_read(capsys):
    for name in layer_types():
        assert main(["layers", name]) == 0
        out = capsys.readouterr().out
        block = out[out.index("\nlayer {") :]
        layer = text_format.Parse(block, caffe_pb2.NetParameter()).layer[0]
        assert layer.type == name
        with suppress(FileError):  # Data opens its database when it is built
            layer_class(name)(layer)  # the numbers of bottoms and tops are right


def test_a_page_tells_all(capsys):
    assert main(["layers", "Pooling"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Pooling  (caffe/layers/pooling.py)\n\n")
    assert layer_class("Pooling").__doc__.strip().partition("\n")[0] in out
    assert "V1 name: POOLING\n" in out
    assert re.search(r"^  pool +MAX \| AVE \| STOCHASTIC, default MAX$", out, re.M)
    assert re.search(r"^  stride +uint32, default 1$", out, re.M)
    assert re.search(r"^  kernel_size +uint32$", out, re.M)
    assert re.search(r"^  global_pooling +true \| false, default false$", out, re.M)
    assert "    kernel_size: 3\n" in out


def test_kinds_of_options(capsys):
    assert main(["layers", "Convolution"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^  pad +list of uint32$", out, re.M)
    assert re.search(r"^  weight_filler +FillerParameter$", out, re.M)
    assert "    num_output: 10\n" in out


def test_the_document_is_up_to_date(capsys):
    assert main(["layers", "--markdown"]) == 0
    made = "caffe layers --markdown > docs/layers.md"
    assert (ROOT / "docs" / "layers.md").read_text() == capsys.readouterr().out, f"make it again: {made}"


def test_the_document_tells_all_types_with_their_options(capsys):
    assert main(["layers", "--markdown"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^\| \[Pooling\]\(#pooling\) \| pooling \| Maximum, .* \| `POOLING` \|$", out, re.M)
    assert re.search(r"^\| pool \| MAX \\\| AVE \\\| STOCHASTIC \| MAX \|$", out, re.M)
    for name in layer_types():
        assert f"\n## {name}\n" in out
        assert f"\n{layer_class(name).__doc__.strip().splitlines()[-1].strip()}\n" in out


def test_an_unknown_type_gets_a_suggestion(capsys):
    assert main(["layers", "Poolling"]) == 1
    assert 'unknown layer type "Poolling"; did you mean "Pooling"?' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("Conv", "Convolution"),
        ("inner", "InnerProduct"),
        ("Soft", "Softmax"),
        ("Poling", "Pooling"),
        ("Pool", "Pooling"),
    ],
)
def test_the_beginning_of_a_name_is_understood_first(word, name, capsys):
    assert main(["layers", word]) == 1
    assert f'did you mean "{name}"?' in capsys.readouterr().err


@pytest.mark.parametrize("command", ["draw", "summarize"])
def test_weights_in_place_of_a_net_are_told_with_flags_that_exist(command, tmp_path, capsys):
    path = tmp_path / "x.caffemodel"
    path.write_bytes(
        caffe_pb2.NetParameter(name="n", layer=[{"name": "a", "blobs": [{"data": [0.0]}]}]).SerializeToString()
    )
    arguments = [str(path), str(tmp_path / "x.svg")]
    assert main([command, *arguments[: 2 if command == "draw" else 1]]) == 1
    err = capsys.readouterr().err
    assert "expected a text file (.prototxt); give the net's definition here" in err
