"""Archives of data sets are unpacked once. Each kind of damage raises one error."""

from __future__ import annotations

import tarfile

import pytest

from caffe.data.tools.unpacking import unpack
from caffe.errors import FileError


def test_an_archive_is_unpacked_once(tmp_path):
    (tmp_path / "a.txt").write_text("first")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "a.txt", "in/a.txt")
    for _ in range(2):
        unpack(tmp_path / "a.tar", tmp_path / "deep" / "out")
        (tmp_path / "deep/out/in/a.txt").write_text("mine")
    assert (tmp_path / "deep/out/in/a.txt").read_text() == "mine"


def test_an_archive_without_files_makes_an_empty_folder(tmp_path):
    tarfile.open(tmp_path / "a.tar", "w").close()
    unpack(tmp_path / "a.tar", tmp_path / "deep" / "out")
    assert [path.name for path in (tmp_path / "deep/out").iterdir()] == [".a.tar.unpacked"]


def test_what_is_no_archive(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"nothing")
    with pytest.raises(FileError, match=r"cannot unpack .*a\.tar"):
        unpack(tmp_path / "a.tar", tmp_path / "out")
