"""A class statement is enough to add a kind of database."""

from __future__ import annotations

import importlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import caffe
import caffe.data
from caffe.cli import main
from caffe.data import READERS, WRITERS, RecordSource, RecordWriter, databases, open_source
from caffe.data.databases.base import backend_of
from caffe.data.databases.datum import encode_datum
from caffe.errors import CaffeError, ProtoError
from caffe.proto import caffe_pb2, extend, text

NET = 'layer {{ name: "d" type: "Data" top: "x" top: "y"\n data_param {{ source: "{}" backend: {} batch_size: 2 }} }}'


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A folder with a database of a kind that this fixture adds: each record is a file."""
    for registry in (READERS, WRITERS):
        monkeypatch.setattr(registry, "items", dict(registry.items))
    monkeypatch.setattr(extend, "_NAMES", set(extend._NAMES))
    monkeypatch.chdir(tmp_path)

    class Files(RecordSource, backend="FILES"):
        """A folder with a file for each record."""

        @classmethod
        def fits(cls, path):
            return Path(path).is_dir() and any(Path(path).glob("*.record"))

        def scan(self, start=None):
            for path in sorted(Path(self.path).glob("*.record")):
                if path.stem.encode() >= (start or b""):
                    yield path.stem.encode(), path.read_bytes()

        def close(self):
            pass

    class FilesWriter(RecordWriter, backend="FILES"):
        def _open(self, folder):
            self.folder = Path(folder)

        def _write(self, records):
            for key, value in records:
                (self.folder / f"{key.decode()}.record").write_bytes(value)

        def _close(self):
            pass

    with caffe.data.create_database("files", "records") as writer:
        for index in range(3):
            writer.put(b"%d" % index, encode_datum(np.full((1, 2, 2), 5 * index, np.uint8), index))
    return tmp_path


def test_a_net_reads_it(made):
    Path("net.prototxt").write_text(NET.format("records", "FILES"))
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    found = [net.forward()["x"][:, 0, 0, 0].tolist() for _ in range(2)]
    assert found == [[0, 5], [10, 0]]


def test_the_commands_offer_and_take_it(made, capsys):
    assert main(["compute_image_mean", "-backend=files", "records", "mean.binaryproto"]) == 0
    assert main(["db", "info", "records"]) == 0
    assert "records: FILES, 3 records" in capsys.readouterr().out
    commands = {"compute_image_mean": READERS, "convert_imageset": WRITERS, "convert_mnist_siamese_data": WRITERS}
    for command, registry in commands.items():
        assert main([command, "--help"]) == 0
        known = ", ".join(sorted(name.lower() for name in registry.names()))
        assert f"Known: {known}." in " ".join(capsys.readouterr().out.split())


def test_a_name_that_resembles_another_is_taken_when_code_has_defined_it(made):
    with pytest.raises(ProtoError, match='did you mean "LMDB"'):
        text.parse(NET.format("x", "LMDBS"), caffe_pb2.NetParameter())
    type("Several", (READERS.find("FILES"),), {}, backend="LMDBS")
    assert text.parse(NET.format("x", "LMDBS"), caffe_pb2.NetParameter()).layer[0].data_param.backend_name == "LMDBS"


def test_its_name_survives_text_and_bytes():
    param = text.parse(NET.format("x", "NEVER_DEFINED"), caffe_pb2.NetParameter())
    printed = text.dumps(param)
    assert "    backend: NEVER_DEFINED\n" in printed
    for again in (
        text.parse(printed, caffe_pb2.NetParameter()),
        caffe_pb2.NetParameter.FromString(param.SerializeToString()),
    ):
        assert again == param
        assert backend_of(again.layer[0].data_param) == "NEVER_DEFINED"


@pytest.mark.parametrize(
    ("backend", "fact"),
    [
        ("LMBD", r':2: layer "d": DataParameter.backend: expected one of .*LEVELDB, LMDB, .*mean "LMDB"'),
        ("FILES backend: LMDB", ":2: .*backend twice"),
        ("LMDB backend: FILES", ":2: .*backend twice"),
        ("7", ":2: .*expected one of"),
    ],
)
def test_wrong_names_are_told_with_their_line(backend, fact):
    with pytest.raises(ProtoError, match=fact):
        text.parse(NET.format("x", backend), caffe_pb2.NetParameter())


def test_a_name_that_no_code_defines(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(NET.format("x", "PARQUET"))
    with pytest.raises(
        CaffeError, match=r'layer "d".*unknown database backend "PARQUET" \(known backends: .*LEVELDB, LMDB, .*\)'
    ):
        caffe.Net(path, caffe.TRAIN)


def test_a_file_of_the_folder_is_imported(tmp_path, monkeypatch):
    for registry in (READERS, WRITERS):
        monkeypatch.setattr(registry, "items", dict(registry.items))
    code = """from caffe.data.databases.base import RecordSource
class Single(RecordSource, backend="SINGLE"):
    def scan(self, start=None):
        with open(self.path, "rb") as file:
            yield b"0", file.read()
    def close(self):
        pass
"""
    (tmp_path / "single.py").write_text(code)
    monkeypatch.setattr(databases, "__path__", [*databases.__path__, str(tmp_path)])
    importlib.reload(caffe.data)
    with closing(open_source("SINGLE", str(tmp_path / "single.py"))) as source:
        assert source.first() == (b"0", code.encode())
