"""Inputs of data layers: databases, records, HDF5 files, lists of images and windows, idx files."""

from __future__ import annotations

import random
import shutil
import struct
from pathlib import Path

import caffe
from caffe.cli import _images
from caffe.data.databases.base import open_source
from caffe.data.databases.datum import DatumReader
from caffe.data.streams.arrays import read_npy
from caffe.data.streams.hdf5 import read_arrays
from caffe.data.streams.images import read_image_list
from caffe.data.tools.mnist import read_idx
from tools.fuzz.kinds import Case, command, kind
from tools.fuzz.mutation import damaged, damaged_message, damaged_text
from tools.fuzz.stored import damage_hdf5

_PAGE = 4096


@kind
def lmdb(case: Case) -> None:
    """A damaged data.mdb."""
    content = (case.seeds / "lmdb" / "data.mdb").read_bytes()
    folder = case.scratch / "db"
    folder.mkdir()
    (folder / "data.mdb").write_bytes(_damaged_pages(content, case.rng))
    _read(case, "LMDB", folder)


def _damaged_pages(content: bytes, rng: random.Random) -> bytes:
    """Change bytes of pages, mostly near their beginning, where the structure is."""
    if rng.random() < 0.2:
        return damaged(content, rng)
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        page = rng.randrange(len(data) // _PAGE) * _PAGE
        choice = rng.randrange(5)
        at = page + rng.randrange(200)
        if choice == 0:
            data[page : page + _PAGE] = bytes(_PAGE)
        elif choice == 1:
            other = rng.randrange(len(data) // _PAGE) * _PAGE
            data[page : page + _PAGE] = data[other : other + _PAGE]
        elif choice == 2:
            struct.pack_into("<H", data, at & ~1, rng.choice((0, 1, 0xFFFF, 4096, 4095, 16, rng.randrange(1 << 16))))
        elif choice == 3:
            struct.pack_into("<Q", data, at & ~7, rng.choice((0, 1, 2, 3, (1 << 64) - 1, 1 << 40, rng.randrange(99))))
        else:
            data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


@kind
def leveldb(case: Case) -> None:
    """A LevelDB folder with a damaged file."""
    folder = case.scratch / "db"
    shutil.copytree(case.seeds / "leveldb", folder)
    path = case.rng.choice(sorted(path for path in folder.iterdir() if path.name not in ("LOCK", "LOG")))
    path.write_bytes(damaged(path.read_bytes(), case.rng))
    _read(case, "LEVELDB", folder)


def _read(case: Case, backend: str, folder: Path) -> None:
    """Read all records, seek to one, and sometimes read like a layer or a command."""
    choice = case.rng.randrange(20)
    if choice == 0:
        param = f'data_param {{ source: "{folder}" batch_size: 100 backend: {backend} }}'
        _forward(case, f'layer {{ name: "d" type: "Data" top: "data" top: "label" {param} }}')
        return
    if choice == 1:
        command("db", folder)
        return
    source = open_source(backend, str(folder))
    try:
        read = DatumReader()
        source.count()
        for _, value in source.scan():
            read(value)
        for _ in source.scan(b"%08d" % case.rng.randrange(250)):
            pass
    finally:
        source.close()


def _forward(case: Case, text: str) -> None:
    net = caffe.Net(str(case.write("net.prototxt", text.encode())), caffe.TRAIN)
    try:
        net.forward()
        net.forward()
    finally:
        net.close()


@kind
def datum(case: Case) -> None:
    """The bytes of a damaged Datum."""
    content = (case.seeds / f"{case.rng.choice(('raw', 'float', 'png'))}.datum").read_bytes()
    read = DatumReader(case.rng.choice((None, None, True, False)))
    read(content) if read.color is None else None
    read(damaged_message(content, case.rng))


@kind
def hdf5(case: Case) -> None:
    """A damaged HDF5 file of data."""
    path = case.scratch / "data.h5"
    damage_hdf5((case.seeds / case.rng.choice(("data.h5", "new.h5"))).read_bytes(), path, case)
    read_arrays(str(path), ["data", "label"])


@kind
def images(case: Case) -> None:
    """A damaged list of images, or a list with a damaged image."""
    name = f"{case.rng.randrange(3)}.{['png', 'jpg', 'bmp'][case.rng.randrange(3)]}"
    text = (case.seeds / "images.txt").read_text()
    content = damaged_text(text, case.rng) if case.rng.random() < 0.5 else text.encode()
    for picture in case.seeds.glob("[012].*"):
        data = picture.read_bytes()
        case.write(picture.name, damaged(data, case.rng) if picture.name == name else data)
    path = case.write("images.txt", content)
    if case.rng.random() < 0.1:
        command("convert_imageset", f"{case.scratch}/", path, case.scratch / "out")
        return
    read_image_list(str(path), labels=case.rng.random() < 0.5)
    size = "new_height: 4 new_width: 4" if case.rng.random() < 0.8 else ""
    param = f'image_data_param {{ source: "{path}" root_folder: "{case.scratch}/" batch_size: 3 {size} }}'
    _forward(case, f'layer {{ name: "d" type: "ImageData" top: "data" top: "label" {param} }}')


@kind
def windows(case: Case) -> None:
    """A damaged window file."""
    path = case.write("windows.txt", damaged_text((case.seeds / "windows.txt").read_text(), case.rng))
    mode = case.rng.choice(("warp", "square"))
    pad = case.rng.choice((0, 1))
    param = f'source: "{path}" root_folder: "{case.seeds}/" batch_size: 4 crop_mode: "{mode}" context_pad: {pad}'
    text = f'layer {{ name: "d" type: "WindowData" top: "data" top: "label" window_data_param {{ {param} }} '
    _forward(case, text + "transform_param { crop_size: 5 mirror: true } }")


@kind
def idx(case: Case) -> None:
    """A damaged idx file of MNIST."""
    name, axes = case.rng.choice((("images.idx", 3), ("labels.idx", 1), ("labels.gz", 1)))
    path = case.write(name, damaged((case.seeds / name).read_bytes(), case.rng))
    if case.rng.random() < 0.05:
        other = case.seeds / "labels.idx"
        pair = (path, other) if axes == 3 else (case.seeds / "images.idx", path)
        command("convert_mnist_data", *pair, case.scratch / "out")
        return
    read_idx(path, axes)


@kind
def arrays(case: Case) -> None:
    """A damaged .npy, .npz or mean file."""
    name = case.rng.choice(("mean.npy", "rows.npz", "mean.binaryproto"))
    path = case.write(name, damaged((case.seeds / name).read_bytes(), case.rng))
    if name == "rows.npz":
        param = f'array_data_param {{ source: "{path}" batch_size: 2 }}'
        _forward(case, f'layer {{ name: "d" type: "ArrayData" top: "data" top: "label" {param} }}')
        return
    if name == "mean.npy":
        choice = case.rng.randrange(3)
        if choice == 0:
            _images.read_mean(str(path))
        else:
            read_npy([str(path)], ["data"])
        return
    text = f'layer {{ name: "d" type: "Data" top: "data" data_param {{ source: "{case.seeds}/lmdb" backend: LMDB '
    _forward(case, text + f'batch_size: 1 }} transform_param {{ mean_file: "{path}" crop_size: 4 }} }}')
