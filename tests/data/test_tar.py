"""Tar shards: reading, writing, and the errors for archives that cannot be used."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from contextlib import closing
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from caffe.data import create_database, open_source
from caffe.data.databases.datum import DatumReader, encode_datum
from caffe.data.databases.tar import TarWriter
from caffe.data.pipeline import shard
from caffe.errors import DataError, FileError
from tests.data.helpers import images, layer, write_lmdb

PNG = cv2.imencode(".png", np.zeros((5, 7, 3), np.uint8))[1].tobytes()
LAYER = """
name: "d" type: "Data" top: "data" top: "label"
transform_param { crop_size: 4 mirror: true }
data_param { source: "%s" backend: %s batch_size: 3 rand_skip: 9 }
"""


def write_tar(path: Path, members: list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    """Write an archive with these names and contents."""
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def labels(path: object) -> list[int]:
    with closing(open_source("TAR", str(path))) as source:
        return [DatumReader()(value)[1] for _, value in source.scan()]


@pytest.fixture
def both(tmp_path, monkeypatch):
    """The same eleven images as an LMDB and as four shards."""
    monkeypatch.setattr(TarWriter, "shard", 3)
    pixels = images(11)
    write_lmdb(tmp_path / "lmdb", pixels)
    with create_database("tar", tmp_path / "tar") as writer:
        for index, image in enumerate(pixels):
            writer.put(b"%08d" % index, encode_datum(image, index))
    return str(tmp_path / "lmdb"), str(tmp_path / "tar" / "{000000..000003}.tar")


@pytest.mark.parametrize(("rank", "size"), [(0, 1), (1, 3)])
def test_batches_and_positions_are_those_of_the_lmdb(both, rank, size, monkeypatch):
    monkeypatch.setattr(shard, "current", lambda: shard.Shard(rank, size))
    made, resumed = [], []
    for path, backend in zip(both, ("LMDB", "TAR"), strict=True):
        torch.manual_seed(3)
        data = layer(LAYER % (path, backend))
        made.append([[top.clone() for top in data()] for _ in range(3)])
        position = data.position()
        made[-1] += [[top.clone() for top in data()] for _ in range(4)]
        data.close()
        again = layer(LAYER % (path, backend))
        again.seek(position)
        resumed.append([[top.clone() for top in again()] for _ in range(4)])
        again.close()
    for ours, theirs in zip(*made, strict=True):
        assert all(map(torch.equal, ours, theirs))
    for ours, theirs in zip(made[1][3:], resumed[1], strict=True):
        assert all(map(torch.equal, ours, theirs))


def test_a_scan_begins_at_any_key_and_wraps(both):
    with closing(open_source("TAR", both[1])) as source:
        assert source.count() == 11
        every = [key for key, _ in source.scan()]
        assert every == sorted(every)
        assert every[4] == b"0000000004_000001.tar/00000004"
        assert [key for key, _ in islice(source.records(every[8]), 5)] == every[8:] + every[:2]
        assert next(source.scan(every[4] + b"\0"))[0] == every[5]
        assert not list(source.scan(b"9"))


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_labels_and_other_members(tmp_path, form):
    long = "folder.v1/" * 30 + "ünï"
    path = write_tar(
        tmp_path / "a.tar",
        [
            ("README", b"text"), ("x.meta.json", b"{}"),
            ("./1.PNG", PNG), ("./1.json", json.dumps({"label": 4}).encode()), ("./1.txt", b"a cat"),
            (f"{long}.cls", b" -7\n"), (f"{long}.seg.png", PNG), (f"{long}.png", PNG),
            ("dir/2.png", PNG), ("dir/2.txt", b"9"), ("dir/3.jpeg", PNG), ("dir/3.json", b"10"),
        ],
        form,
    )  # fmt: skip
    assert labels(path) == [4, -7, 9, 10]
    write_tar(tmp_path / "b.tar", [("1.png", PNG), ("1.cls", b"5")])
    assert labels(tmp_path) == [4, -7, 9, 10, 5]
    assert labels(tmp_path / "{b,a}.tar") == [5, 4, -7, 9, 10]


GOOD = [("1.png", PNG), ("1.cls", b"5")]
FAULTS = {
    "no label": ([("0.png", PNG), *GOOD], 'byte 0: image "0.png" has no label; expected 0.cls'),
    "no image": ([*GOOD, ("2.cls", b"1")], 'byte 2048: label "2.cls" has no image beside it'),
    "two images": ([*GOOD, ("2.png", PNG), ("2.jpg", PNG), ("2.cls", b"1")], "has two images"),
    "same twice": ([("1.cls", b"5"), *GOOD], 'byte 2048: "1.cls" is the second cls of "1"'),
    "word": ([("1.png", PNG), ("1.cls", b"cat")], "byte 1024: label \"1.cls\" is 'cat', expected a whole number"),
    "underscore": ([("1.png", PNG), ("1.cls", b"1_0")], "is '1_0', expected a whole number"),
    "no field": ([("1.png", PNG), ("1.json", b'{"id": 3}')], 'expected a whole number, or {"label": number}'),
    "nothing": ([], "it holds no images with labels"),
}


@pytest.mark.parametrize(("members", "expected"), FAULTS.values(), ids=FAULTS)
def test_a_wrong_sample_is_one_error_with_its_byte(tmp_path, members, expected):
    path = write_tar(tmp_path / "a.tar", members)
    with pytest.raises(FileError) as caught:
        open_source("TAR", str(path))
    assert f'tar shard "{path}": ' in str(caught.value)
    assert expected in str(caught.value)


def damaged(data: bytes, at: int) -> bytes:
    return data[:at] + b"?" + data[at + 1 :]


@pytest.mark.parametrize(("change", "expected"),
    [
        (lambda data: data[:540], "byte 0: the content of '1.png' ends at byte"),
        (lambda data: data[:2048], "byte 2048: the file ends where 512 more bytes are expected"),
        (lambda data: damaged(data, 1024), "byte 1024: no header of a tar archive"),
        (lambda data: b"", "the file is empty"),
        (gzip.compress, "byte 0: it is compressed with gzip"),
        (lambda data: bytes(1024), "it holds no images with labels"),
    ],
    ids=["in a member", "between members", "header", "empty", "gzip", "end only"],
)  # fmt: skip
def test_a_damaged_shard_is_one_error_with_its_byte(tmp_path, change, expected):
    path = write_tar(tmp_path / "a.tar", GOOD)
    path.write_bytes(change(path.read_bytes()[:3072]))
    with pytest.raises(FileError) as caught:
        open_source("TAR", str(path))
    assert f'tar shard "{path}": ' in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize(("name", "expected"),
    [
        ("x-{0..2}.tar", "x-0.tar\" not found (3 of the 3 shards of the pattern are missing)"),
        ("{a,b}.tar", "b.tar\" not found (1 of the 2 shards of the pattern are missing)"),
        ("c.tar", 'c.tar" not found: no such file'),
        ("{a.tar", "unbalanced braces"),
        ("{a}.tar", "{a} is not a valid pattern; expected {000..009} or {a,b}"),
        ("{9..1}.tar", "{9..1} is not a valid range"),
        ("empty", "holds no .tar file"),
        ("lmdb", "is an LMDB database, not a folder of tar shards; set backend: LMDB"),
    ],
)  # fmt: skip
def test_a_pattern_without_shards_is_an_error(tmp_path, name, expected):
    write_tar(tmp_path / "a.tar", GOOD)
    (tmp_path / "empty").mkdir()
    write_lmdb(tmp_path / "lmdb", images(1))
    with pytest.raises(FileError) as caught:
        open_source("TAR", str(tmp_path / name))
    assert expected in str(caught.value)


@pytest.mark.parametrize("backend", ["LMDB", "LEVELDB"])
def test_other_backends_say_that_shards_are_shards(tmp_path, backend):
    path = write_tar(tmp_path / "a.tar", GOOD)
    for name in (path, tmp_path, tmp_path / "{a,b}.tar"):
        with pytest.raises(FileError, match="names tar shards; set backend: TAR"):
            open_source(backend, str(name))


def test_a_shard_that_is_cut_while_it_is_read_is_an_error(tmp_path):
    path = write_tar(tmp_path / "a.tar", GOOD)
    source = open_source("TAR", str(path))
    path.write_bytes(path.read_bytes()[:540])
    with pytest.raises(DataError, match="has changed since it was opened: byte 540"):
        list(source.scan())
    source.close()
    with pytest.raises(FileError, match="have been closed"):
        list(source.scan())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (encode_datum(images(1, (2, 5, 7))[0], 1), "has 2 channels; tar shards hold images of 1 or 3 channels"),
        (b"\x0a\x00", "has boxes, which tar shards do not hold"),
        (b"\x22\x01x\x38\x01", "has an image of unknown format"),
    ],
)
def test_records_that_are_no_pictures_cannot_be_written(tmp_path, value, expected):
    with pytest.raises(DataError, match=expected), create_database("tar", tmp_path / "t") as writer:
        writer.put(b"1", value)
    assert not (tmp_path / "t").exists()


def test_compressed_images_keep_their_bytes_and_their_format(tmp_path):
    from caffe.proto.caffe_pb2 import Datum

    with create_database("tar", tmp_path / "t") as writer:
        writer.put(b"00_a.b/c.PNG", Datum(data=PNG, encoded=True, label=3).SerializeToString())
    with tarfile.open(tmp_path / "t" / "000000.tar") as archive:
        assert archive.getnames() == ["00_a_b/c.png", "00_a_b/c.cls"]
        assert archive.extractfile("00_a_b/c.png").read() == PNG  # type: ignore[union-attr]
    assert labels(tmp_path / "t") == [3]
