"""Invalid inputs: one error for each, exit code 1, and no files left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest

import caffe
from caffe import cli, filler
from caffe.data.databases.base import RecordSource
from caffe.data.databases.leveldb import LevelDb, LevelDbWriter
from caffe.data.databases.writer import RecordWriter, create_database
from caffe.errors import CaffeError, FileError, LayerError, ProtoError
from caffe.proto import caffe_pb2, files, schema, text, weights

IP = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 2 weight_filler { %s } } }
"""


def parse(content):
    return text.parse(content, caffe_pb2.NetParameter())


@pytest.mark.parametrize("name", ["\\ud800", "\\ud800x", "\\udc00\\ud800", "\ud800"])
def test_half_a_pair_of_surrogates_is_no_text(name):
    with pytest.raises(ProtoError, match="<text>:1: name: the string is not valid UTF-8"):
        parse(f'name: "{name}"')


def test_a_pair_of_surrogates_is_a_character():
    assert parse(r'name: "\ud83d\ude00"').name == "\N{GRINNING FACE}"


@pytest.mark.parametrize(
    "content",
    ["min: 2 max: 1", "min: nan", "max: inf", "min: -3e38 max: 3e38"],
)
def test_a_uniform_filler_has_a_range(content):
    with pytest.raises(LayerError, match=r'layer "ip" .*filler "uniform": min is .* expected min <= max'):
        caffe.Net(parse(IP % f'type: "uniform" {content}'), caffe.TEST)


@pytest.mark.parametrize("std", ["-1", "nan"])
def test_a_gaussian_filler_has_a_deviation(std):
    with pytest.raises(LayerError, match=r'layer "ip" .*filler "gaussian": std is'):
        caffe.Net(parse(IP % f'type: "gaussian" std: {std}'), caffe.TEST)


@pytest.mark.parametrize("name", filler.filler_types())
@pytest.mark.parametrize("shape", [(), (0,), (2, 0)])
def test_fillers_take_blobs_without_axes_or_elements(name, shape):
    import torch

    tensor = torch.full(shape, 7.0)
    if name == "bilinear" and not shape:
        with pytest.raises(LayerError, match="expected a blob with 4 axes"):
            filler.fill(tensor, caffe_pb2.FillerParameter(type=name))
    else:
        filler.fill(tensor, caffe_pb2.FillerParameter(type=name))
        assert not (tensor == 7).any()


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
def test_a_convolution_needs_channels(kind):
    net = f"""
    layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 0 dim: 5 dim: 5 }} }} }}
    layer {{ name: "c" type: "{kind}" bottom: "x" top: "y" convolution_param {{ num_output: 2 kernel_size: 3 }} }}
    """
    with pytest.raises(LayerError, match=r'layer "c" .*bottom "x" has no channels'):
        caffe.Net(parse(net), caffe.TRAIN)


def test_a_net_without_layers_runs():
    assert caffe.Net(parse('name: "none"'), caffe.TEST).forward() == {}


LONG = "x" * 300


@pytest.mark.parametrize("name", [LONG, f"a/{LONG}", "a\0b", "\ud800"])
def test_names_that_no_file_can_have(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("a")
    with pytest.raises(FileError, match="cannot read"):
        files.read_bytes(name)
    with pytest.raises(FileError, match="cannot write"):
        weights.write(name, caffe_pb2.NetParameter(), {})
    with pytest.raises(FileError, match="cannot write"):
        files.check_writable(name)
    with pytest.raises(FileError, match="cannot open the list"):
        files.lines(name, "list")
    with pytest.raises(FileError, match="cannot write the LMDB database"):
        create_database("lmdb", name)
    assert os.listdir() == ["a"]


def test_a_snapshot_prefix_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.prototxt").write_text(
        f'net_param {{ {IP % ""} layer {{ name: "l" type: "EuclideanLoss" bottom: "y" bottom: "x" top: "l" }} }} '
        f'base_lr: 1 lr_policy: "fixed" snapshot: 1 snapshot_prefix: "{LONG}"'
    )
    with pytest.raises(CaffeError, match="File name too long"):
        caffe.get_solver("s.prototxt").step(1)


def test_an_image_whose_name_holds_a_null(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"a\0b.png 1\n")
    assert cli.main(["convert_imageset", f"{tmp_path}/", f"{tmp_path}/list.txt", f"{tmp_path}/db"]) == 1


HEADERS = [b"{'descr': '<f4'", b"{'descr': '<f4', 'fortran_order': False, 'shape': (", b"[" * 100, b"\xff" * 60, b"{}"]


@pytest.mark.parametrize("header", HEADERS)
def test_a_mean_with_a_broken_header(header, tmp_path):
    from caffe.cli import _images
    from caffe.data.streams.arrays import read_npy

    np.save(tmp_path / "mean.npy", np.zeros(3, np.float32))
    content = (tmp_path / "mean.npy").read_bytes()
    (tmp_path / "mean.npy").write_bytes(content[:10] + header.ljust(118) + content[128:])
    with pytest.raises(FileError, match=r"cannot read the array .*mean\.npy"):
        _images.read_mean(str(tmp_path / "mean.npy"))
    with pytest.raises(FileError, match=r"mean\.npy"):
        read_npy([str(tmp_path / "mean.npy")], ["data"])


@pytest.mark.parametrize("tool", ["upgrade_net_proto_binary", "average"])
def test_texts_in_binary_files_are_utf8(tool, tmp_path, capsys):
    net = caffe_pb2.NetParameter(name="abc")
    net.layer.add(name="input", type="abcdef").blobs.add(data=[1])
    (tmp_path / "n.caffemodel").write_bytes(net.SerializeToString().replace(b"abcdef", b"abc\xffef"))
    out = [f"{tmp_path}/o"] if tool != "average" else ["-out", f"{tmp_path}/o"]
    assert cli.main([tool, f"{tmp_path}/n.caffemodel", *out]) == 1
    assert re.search(r"n\.caffemodel: .*is damaged", capsys.readouterr().err)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("number", [".", "1.2.3", "9" * 5000])
def test_odd_numbers_in_a_log(number, tmp_path):
    line = "I0131 13:08:22.531250 1 solver.cpp:1] "
    (tmp_path / "log").write_text(
        f"{line}Iteration {number if len(number) > 9 else 1}, lr = {number}\n{line}Iteration 1, loss = 1\n"
        f"{line}    Train net output #0: loss = {number}\n"
    )
    assert cli.main(["parse_log", f"{tmp_path}/log", str(tmp_path)]) in (0, 1)


@pytest.mark.parametrize("corner", ["nan", "inf", "1e30"])
def test_windows_have_corners(corner, tmp_path):
    from caffe.data.streams.windows import read_windows

    (tmp_path / "w.txt").write_text(f"# 0\na.png\n3\n8\n9\n1\n1 0.9 0 0 {corner} 6\n")
    with pytest.raises(FileError, match=r"w\.txt:1: "):
        read_windows(str(tmp_path / "w.txt"), "", 0.5, 0.5)


def test_a_layer_of_hdf5_weights_with_too_many_blobs(tmp_path):
    import h5py

    net = caffe.Net(parse(IP % ""), caffe.TEST)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["data/ip/0"], file["data/ip/3"] = np.ones((2, 2), np.float32), np.ones(2, np.float32)
    with pytest.raises(CaffeError, match=r"has 4 blob\(s\) for it, the net has 2"):
        net.copy_from(str(tmp_path / "w.h5"))
    with h5py.File(tmp_path / "w.h5", "r+") as file:
        file["data/ip/99999999999"] = np.ones(2, np.float32)
    with pytest.raises(CaffeError, match="has a blob with index 99999999999"):
        net.copy_from(str(tmp_path / "w.h5"))


def test_two_of_one_name_are_refused():
    with pytest.raises(LayerError, match=r'filler type "xavier" '):
        filler.filler("xavier")(lambda tensor, param: None)
    with pytest.raises(FileError, match=r'backend "LMDB" is defined twice, in .*lmdb.py and in .*test_bad_input.py'):

        class Other(RecordSource, backend="LMDB"):
            pass

    with pytest.raises(FileError, match=r'backend "lmdb" is defined twice'):

        class Another(RecordWriter, backend="LMDB"):
            pass


def test_one_file_holds_the_messages_of_two_layer_types(tmp_path):
    field = "{ optional float scale = 1 [default = 2]; optional caffe.FillerParameter filler = 2; }"
    (tmp_path / "two.proto").write_text(f"package two_types; message A {field} message B {field}")
    first, second = schema.load(tmp_path / "two.proto"), schema.load(tmp_path / "two.proto")
    assert first.message_types_by_name["A"] is second.message_types_by_name["A"]


SLEEP = """
import os, signal, sys, time
from caffe import cli
from caffe.cli import command
from caffe.data.databases.leveldb import LevelDb
@command.command(task="tools")
def wait(flags, display):
    source = LevelDb(sys.argv[1])
    print("open", flush=True)
    time.sleep(60)
sys.exit(cli.main(["wait"]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_reader_leaves_no_folder(number, tmp_path, monkeypatch):
    pytest.importorskip("plyvel")
    with LevelDbWriter(tmp_path / "db") as writer:
        writer.put(b"a", b"1")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with subprocess.Popen([sys.executable, "-c", SLEEP, tmp_path / "db"], stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout.readline() == "open\n"
        assert len(os.listdir(tmp_path / "tmp")) == 1
        other = LevelDb(str(tmp_path / "db"))  # does not affect a running reader
        assert len(os.listdir(tmp_path / "tmp")) == 2
        other.close()
        reader.send_signal(number)
    if number == signal.SIGTERM:
        assert reader.returncode == 143
    else:
        LevelDb(str(tmp_path / "db")).close()  # removes the files of the killed process
    deadline = time.monotonic() + 5
    while os.listdir(tmp_path / "tmp") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not os.listdir(tmp_path / "tmp")
