"""LMDB and LevelDB: reading, writing, and the errors for files that cannot be used."""

from __future__ import annotations

import json
import sys
from itertools import islice

import numpy as np
import pytest

from caffe.data import open_source
from caffe.data.databases.datum import DatumReader
from caffe.data.databases.lmdb import LmdbWriter
from caffe.errors import DataError, FileError, MissingExtra
from tests.conftest import shared, shared_cases
from tests.data.helpers import copy_of, images, write_lmdb


def matches(source, dump) -> None:
    """Compare every record of the database with the reference's dump."""
    read = DatumReader()
    records = list(source.scan())
    assert len(records) == len(json.loads(str(dump["keys"])))
    for index, (key, value) in enumerate((key, bytes(value)) for key, value in records):
        assert key.decode() == json.loads(str(dump["keys"]))[index]
        image, label = read(value)
        assert label == (dump[f"{index}/label"].item() if dump[f"{index}/label"].size else 0)
        if not dump[f"{index}/encoded"]:
            assert image.shape == tuple(dump[f"{index}/shape"])
            stored = dump.get(f"{index}/float_data")
            if stored is None or not stored.size:
                stored = dump[f"{index}/data"]
            np.testing.assert_array_equal(image.ravel(), np.frombuffer(stored, stored.dtype))


@pytest.mark.parametrize("path", shared_cases("golden/data", "dump_*.npz"))
def test_lmdb_records_are_those_of_the_reference(path, tmp_path):
    source = open_source("LMDB", str(copy_of(path.stem.removeprefix("dump_"), tmp_path)))
    matches(source, dict(np.load(path)))


@pytest.mark.parametrize("name", ["resized", "gray", "encoded"])
def test_leveldb_records_are_those_of_the_lmdb(name, tmp_path):
    dump = dict(np.load(shared("golden", "data", f"dump_lmdb_{name}.npz")))
    source = open_source("LEVELDB", str(copy_of(f"leveldb_{name}", tmp_path)))
    matches(source, dump)
    source.close()


def keys(source, start, count) -> list[bytes]:
    return [key for key, _ in islice(source.records(start), count)]


@pytest.mark.parametrize("backend", ["LMDB", "LEVELDB"])
def test_records_wrap_and_begin_where_they_are_told(backend, tmp_path):
    source = open_source(backend, str(copy_of(f"{backend.lower()}_gray", tmp_path)))
    every = [key for key, _ in source.scan()]
    assert len(every) == 12
    assert keys(source, None, 14) == every + every[:2]
    assert keys(source, every[10], 4) == [every[10], every[11], every[0], every[1]]
    assert keys(source, every[4] + b"!", 1) == [every[5]], "between two keys the later one counts"
    assert keys(source, b"~", 2) == every[:2], "after the last key comes the first"
    source.close()
    with pytest.raises(FileError, match="has been closed"):
        next(source.scan())


@pytest.mark.parametrize("backend", ["LMDB", "LEVELDB"])
def test_a_database_is_not_written_to_and_can_be_open_twice(backend, tmp_path):
    path = copy_of(f"{backend.lower()}_gray", tmp_path)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    for file in (*path.iterdir(), path):
        file.chmod(0o555)
    first, second = open_source(backend, str(path)), open_source(backend, str(path))
    one, two = first.records(), second.records()
    assert next(one)[0] == next(two)[0]
    assert next(one)[0] != next(first.records())[0]
    first.close()
    assert next(two)[0], "the other one reads on"
    second.close()
    path.chmod(0o755)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def broken(kind, tmp_path):
    """A path that is not an LMDB database, and the backend that reads it."""
    path = tmp_path / "db"
    if kind == "file":
        path.write_bytes(b"x")
    elif kind == "folder":
        path.mkdir()
    elif kind == "LevelDB":
        copy_of("leveldb_gray", tmp_path).rename(path)
    elif kind != "missing":
        write_lmdb(path, images(40, (3, 31, 37)) if kind != "no records" else [])
        content = (path / "data.mdb").read_bytes()
        spoiled = {"zero bytes": b"", "junk": b"x" * 20000, "truncated": content[: len(content) // 2]}
        (path / "data.mdb").write_bytes(spoiled.get(kind, content))
    return str(path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "not found: no such file or directory"),
        ("file", "is a file; give the folder"),
        ("folder", "not an LMDB database: it has no file data.mdb"),
        ("LevelDB", "set backend: LEVELDB"),
        ("zero bytes", "data.mdb is empty"),
        ("junk", "cannot open .* as an LMDB database"),
        ("truncated", "is truncated: data.mdb has"),
        ("no records", "holds no records"),
    ],
)
def test_what_is_no_lmdb_is_refused_by_name(kind, message, tmp_path):
    path = broken(kind, tmp_path)
    with pytest.raises(FileError, match=message) as caught:
        open_source("LMDB", path)
    assert path in str(caught.value)


def test_a_missing_database_names_the_command_that_makes_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # `make demo` creates one of them in the repository
    for path, way in (
        ("examples/mnist/mnist_test_lmdb/", "caffe data mnist -o examples/mnist"),
        ("mnist_train_lmdb", "caffe data mnist -o ."),
        ("some/train_lmdb", "caffe convert_imageset"),
    ):
        for backend in ("LMDB", "LEVELDB"):
            with pytest.raises(FileError, match=rf"not found: .* \(from .*\); make it with: {way}$"):
                open_source(backend, path)


def test_what_is_no_leveldb_is_refused_by_name(tmp_path):
    with pytest.raises(FileError, match="not found"):
        open_source("LEVELDB", str(tmp_path / "nowhere"))
    with pytest.raises(FileError, match="it has no file CURRENT"):
        open_source("LEVELDB", str(tmp_path))
    path = write_lmdb(tmp_path / "lmdb", images(2))
    with pytest.raises(FileError, match="is an LMDB database, not a LevelDB one; set backend: LMDB"):
        open_source("LEVELDB", str(path))


def test_a_damaged_leveldb_is_refused(tmp_path):
    path = copy_of("leveldb_gray", tmp_path)
    table = path / "000005.ldb"
    content = bytearray(table.read_bytes())
    content[200] ^= 0xFF
    table.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        open_source("LEVELDB", str(path))
    (path / "CURRENT").write_text("MANIFEST-000077\n")
    with pytest.raises(FileError, match="cannot open LevelDB"):
        open_source("LEVELDB", str(path))


def test_leveldb_without_its_package_names_the_pip_line(tmp_path, monkeypatch):
    path = copy_of("leveldb_gray", tmp_path)
    monkeypatch.setitem(sys.modules, "plyvel", None)
    with pytest.raises(MissingExtra, match=r"pip install 'cafetiere\[leveldb\]'"):
        open_source("LEVELDB", str(path))


def test_an_unknown_backend_is_refused():
    with pytest.raises(FileError, match='unknown database backend "LMDBB"; did you mean "LMDB"'):
        open_source("LMDBB", "db")


# -- writing -----------------------------------------------------------------------------------------------------------


def test_the_writer_grows_its_map(tmp_path):
    block = bytes(1 << 20)
    with LmdbWriter(tmp_path / "db", commit=30) as writer:
        for index in range(100):  # 100 MB; the map starts with 64
            writer.put(b"%03d" % index, block[index:])
    assert [len(value) for _, value in open_source("LMDB", str(tmp_path / "db")).scan()] == [
        len(block) - index for index in range(100)
    ]


def test_a_writer_that_fails_leaves_nothing_behind(tmp_path):
    def fail():
        with LmdbWriter(tmp_path / "new" / "db") as writer:
            writer.put(b"a", b"b")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_the_writer_replaces_only_when_asked(tmp_path):
    path = write_lmdb(tmp_path / "db", images(3))
    with pytest.raises(FileError, match="exists already"):
        LmdbWriter(path)
    with LmdbWriter(path, overwrite=True) as writer:
        writer.put(b"k", b"v")
    assert [(key, bytes(value)) for key, value in open_source("LMDB", str(path)).scan()] == [(b"k", b"v")]
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["data.mdb", "db"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot write the LMDB database"):
        LmdbWriter(tmp_path / "file" / "db")
