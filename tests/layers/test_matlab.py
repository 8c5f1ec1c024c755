"""MatWrite and MatRead of DeepLab."""

import struct
import zlib

import h5py
import numpy as np
import pytest
import torch

from caffe.errors import CaffeError, LayerError
from caffe.layers.support.matfile import read_array
from tests.layers.alone import alone
from tests.layers.build import assert_rejected

HEAD = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x100) + b"IM"


def writer(folder, options="", shapes=((1, 2, 3, 4),)):
    return alone("MatWrite", shapes, f'mat_write_param {{ prefix: "{folder}/" {options} }}', tops=0)


def reader(folder, options="", tops=1):
    return alone("MatRead", [], f'mat_read_param {{ prefix: "{folder}/" {options} }}', tops=tops)


def test_the_bytes_of_a_file(tmp_path):
    """The bytes of a file with two numbers follow the tables of the document "MAT-File Format"."""
    writer(tmp_path, shapes=((1, 1, 1, 2),))(torch.tensor([1.5, -2]).view(1, 1, 1, 2))
    array = struct.pack("<IIII", 6, 8, 7, 0) + struct.pack("<II4i", 5, 16, 2, 1, 1, 1)
    array += struct.pack("<II", 1, 4) + b"data\0\0\0\0" + struct.pack("<IIff", 7, 8, 1.5, -2)
    assert (tmp_path / "iter_0_blob_0.mat").read_bytes() == HEAD + struct.pack("<II", 14, len(array)) + array


def test_what_is_written_is_read(tmp_path):
    (tmp_path / "list").write_text("one.jpg 5\ntwo.jpg 6\n")
    named = f'source: "{tmp_path}/list" strip: 4'
    x = torch.arange(48.0).view(2, 1, 2, 3, 4)
    y = torch.tensor([[[7.0]], [[8]]])
    layer = writer(tmp_path, named, ((1, 2, 3, 4), (1, 1)))
    for each in zip(x, y, strict=True):
        assert layer(*each) in ((), None)
    with pytest.raises(LayerError, match="run 3 has no line"):
        layer(x[0], y[0])
    assert sorted(path.name for path in tmp_path.glob("*.mat")) == [
        f"{name}_blob_{index}.mat" for name in ("one", "two") for index in (0, 1)
    ]
    layer = reader(tmp_path, named + " batch_size: 3", tops=2)
    first, second = layer()
    torch.testing.assert_close(first, x[[0, 1, 0], 0])
    assert second.flatten().tolist() == [7, 8, 7]
    again = reader(tmp_path, named + " batch_size: 3", tops=2)
    again.seek(layer.position())
    assert again()[1].flatten().tolist() == layer()[1].flatten().tolist() == [8, 7, 8]


def test_every_second_run(tmp_path):
    layer = writer(tmp_path, "period: 2")
    for _ in range(3):
        layer(torch.zeros(1, 2, 3, 4))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["iter_0_blob_0.mat", "iter_2_blob_0.mat"]


def test_files_of_matlab(tmp_path):
    """The files are compressed or not, of either byte order, with small elements and other arrays first, or of version
    7.3.
    """
    path = str(tmp_path / "x.mat")
    for order, mark in (("<", b"IM"), (">", b"MI")):
        small = struct.pack(f"{order}I", 4 << 16 | 1) if order == "<" else struct.pack(">I", 4 << 16 | 1)
        made = b""
        for name, numbers in ((b"else", (0, 0)), (b"data", (3, 4))):
            array = struct.pack(f"{order}IIII", 6, 8, 6, 0) + struct.pack(f"{order}II2i", 5, 8, 2, 1)
            array += small + name + struct.pack(f"{order}I", 2 << 16 | 2) + bytes([*numbers, 0, 0])
            element = struct.pack(f"{order}II", 14, len(array)) + array
            packed = zlib.compress(element)
            made += struct.pack(f"{order}II", 15, len(packed)) + packed
        with open(path, "wb") as file:
            file.write(HEAD[:126] + mark + made)
        assert read_array(path).tolist() == [[3, 4]]
    with h5py.File(path, "w", userblock_size=512) as file:
        file["data"] = np.arange(6.0).reshape(1, 2, 3)
    assert read_array(path).tolist() == [[[0, 1, 2], [3, 4, 5]]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        (b"text", "is not a MATLAB file"),
        (HEAD, 'has no array "data"'),
        (HEAD + struct.pack("<II", 14, 100), "is damaged"),
        (HEAD + struct.pack("<II", 15, 8) + bytes(8), "is damaged"),
    ],
)
def test_wrong_files(tmp_path, content, says):
    if content is not None:
        (tmp_path / "iter_0_blob_0.mat").write_bytes(content)
    with pytest.raises(LayerError, match=says):
        reader(tmp_path)


def test_wrong_input(tmp_path):
    writer(tmp_path, shapes=((2, 1),))(torch.zeros(2, 1))
    with pytest.raises(LayerError, match="one item"):
        reader(tmp_path)
    writer(tmp_path)(torch.zeros(1, 2, 3, 4))
    writer(tmp_path, shapes=((1, 2),))
    layer = reader(tmp_path)
    layer()
    with pytest.raises(LayerError, match="iter_1_blob_0"):
        layer()
    layer = writer(tmp_path, 'source: "none"')  # a published net can be built without its files
    with pytest.raises(CaffeError, match="cannot open the source"):
        layer(torch.zeros(1, 2, 3, 4))
    with pytest.raises(CaffeError, match="no-folder"):
        writer(tmp_path / "no-folder")(torch.zeros(1, 2, 3, 4))
    (tmp_path / "list").write_text("a\n")
    with pytest.raises(LayerError, match="leaves nothing"):
        reader(tmp_path, f'source: "{tmp_path}/list" strip: 1')
    assert_rejected("MatWrite", "mat_write_param { period: 0 }", (1, 1), says="period is 0", tops=0)
