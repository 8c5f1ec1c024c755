"""Sizes beyond the memory, and endless files, are rejected before memory is allocated or data are read."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe
from caffe import limits
from caffe.data.databases.datum import decode
from caffe.data.streams.images import read_image, read_image_list
from caffe.errors import CaffeError, DataError, FileError, LayerError
from caffe.proto import caffe_pb2, files, text
from caffe.train_log import _lines

INPUT = 'layer {{ name: "in" type: "Input" top: "data" input_param {{ shape {{ {} }} }} }}\n'


def build(tmp_path: Path, source: str) -> caffe.Net:
    path = tmp_path / "net.prototxt"
    path.write_text(source)
    return caffe.Net(str(path), caffe.TEST)


@pytest.mark.parametrize(
    ("dims", "layer", "says"),
    [
        (
            "dim: 1048576 dim: 1048576",
            "",
            ':1: layer "in" (Input): top "data" of shape 1048576 x 1048576 takes',
        ),
        (
            "dim: 2 dim: 3 dim: 5 dim: 7",
            'type: "Convolution" convolution_param { num_output: 4294967295 kernel_size: 5 }',
            ':2: layer "l" (Convolution): the blob weight of shape 4294967295 x 3 x 5 x 5 takes',
        ),
        (
            "dim: 2 dim: 10000000",
            'type: "InnerProduct" inner_product_param { num_output: 15000000 }',
            ':2: layer "l" (InnerProduct): the blob weight of shape 15000000 x 10000000 takes 600000000000000 bytes',
        ),
        (
            "dim: 2 dim: 300000",
            'type: "Tile" tile_param { tiles: 2147483647 }',
            ':2: layer "l" (Tile): top "y" of shape',
        ),
        (
            "dim: 2 dim: 3 dim: 5 dim: 7",
            'type: "Convolution" convolution_param { num_output: 2 kernel_size: 1 pad: 2147483647 }',
            ':2: layer "l" (Convolution): has more elements than can be counted',
        ),
        (
            "dim: 2 dim: 3 dim: 5 dim: 7",
            'type: "Im2col" convolution_param { kernel_size: 1 pad: 2147483647 stride: 2147483647 }',
            ':2: layer "l" (Im2col): the bottom with its padding of shape 4294967299 x 4294967301 takes',
        ),
    ],
)
def test_a_size_beyond_the_memory_is_an_error_of_the_layer(dims, layer, says, tmp_path):
    source = INPUT.format(dims) + (f'layer {{ name: "l" bottom: "data" top: "y" {layer} }}' if layer else "")
    with pytest.raises(LayerError) as info:
        build(tmp_path, source)
    assert says in str(info.value)


def test_a_net_whose_zeros_may_never_be_written_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "memory_limit", lambda: 20 << 30)
    net = build(tmp_path, INPUT.format("dim: 2500000000"))
    assert net.blobs["data"].shape == (2500000000,)
    monkeypatch.setattr(limits, "memory_limit", lambda: 9 << 30)
    with pytest.raises(LayerError, match=r"10000000000 bytes \(9.3 GiB\), and this machine has 9663676416 bytes"):
        build(tmp_path, INPUT.format("dim: 2500000000"))


@pytest.mark.parametrize("shape", [(2**40, 3, 4, 4), (2**62, 2**62), (2**63,)])
def test_a_blob_keeps_its_shape_where_the_new_one_cannot_be_had(shape):
    blob = caffe.Blob(2, 3)
    blob.data[...] = 7
    with pytest.raises(CaffeError, match="available; use smaller sizes"):
        blob.reshape(*shape)
    assert blob.shape == (2, 3)
    assert (blob.data == 7).all()
    with pytest.raises(CaffeError, match="available; use smaller sizes"):
        caffe.Blob(*shape)


def test_the_limit_is_the_machine_or_its_group(monkeypatch, tmp_path):
    assert 1 << 20 < limits.memory_limit() < 1 << 60
    (tmp_path / "max").write_text("1048576\n")
    monkeypatch.setattr(limits, "_CGROUPS", (str(tmp_path / "max"), str(tmp_path / "absent")))
    assert limits.memory_limit() == 1048576
    (tmp_path / "max").write_text("max\n")
    assert limits.memory_limit() > 1048576


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no such device")
@pytest.mark.parametrize(
    "read",
    [
        lambda path: text.read(path, caffe_pb2.NetParameter()),
        files.read_bytes,
        read_image_list,
        lambda path: read_image(path),
        caffe.io.load_image,
        _lines,
    ],
)
def test_a_device_is_refused(read):
    with pytest.raises((FileError, DataError), match="a device or a socket, expected a file"):
        read("/dev/zero")


def test_a_socket_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        with pytest.raises(FileError, match="a device or a socket"):
            files.read_bytes("s")


def test_a_pipe_is_read_while_somebody_writes(tmp_path, monkeypatch):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(FileError, match="it is a pipe, expected a file"):
        read_image_list(str(path))
    writer = threading.Thread(target=path.write_text, args=('name: "n" # ' + "x" * 100000,))
    writer.start()
    assert text.read(path, caffe_pb2.NetParameter()).name == "n"
    writer.join()
    monkeypatch.setattr(files, "_PATIENCE", 0.05)
    with pytest.raises(FileError, match=r"a pipe into which nothing was written for 0\.05 seconds"):
        files.read_bytes(path)


def test_a_text_that_is_far_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_MOST_TEXT", 1000)
    path = tmp_path / "net.prototxt"
    path.write_text("#" * 5000)
    with pytest.raises(FileError, match=r"net.prototxt: has 5000 bytes, expected a text of at most 1000; if it holds"):
        text.read(path, caffe_pb2.NetParameter())


def test_an_image_of_too_many_pixels_is_refused(tmp_path):
    path = tmp_path / "large.png"
    cv2.imwrite(str(path), np.zeros((300, 300), np.uint8))
    command = (
        "import caffe.io\nfrom caffe.data.databases.datum import decode\n"
        f"for read in (caffe.io.load_image, lambda path: decode(open(path, 'rb').read())):\n"
        f"    try:\n        read({str(path)!r})\n    except caffe.CaffeError as error:\n        print(error)\n"
    )
    environment = {**os.environ, limits.PIXELS: "80000"}
    ended = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.count("more pixels than 80000, or a side of more than 1048576; scale it down, or set the") == 2
    assert decode(path.read_bytes()).shape == (300, 300)
    assert int(os.environ[limits.PIXELS]) == 1 << 28
