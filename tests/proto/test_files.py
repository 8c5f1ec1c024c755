"""Reading and replacing files."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from caffe.errors import FileError
from caffe.proto import caffe_pb2, files


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with files.atomic(path) as file:
        assert os.path.dirname(file.name) == str(tmp_path)
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.bin"]


def write(path, content: bytes, error: type[BaseException] | None = None) -> None:
    with files.atomic(path) as file:
        file.write(content)
        if error:
            raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(error):
        write(path, b"ne", error)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_disk_full(tmp_path):
    """With a limit on file sizes, a write fails in the middle, as on a full disk."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(FileError, match=r"a.bin: cannot write: .* MB free.*the old file is unchanged"):
            write(path, bytes(1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_permissions_are_those_of_the_old_file_or_of_a_new_file(tmp_path):
    old, new, plain = tmp_path / "old", tmp_path / "new", tmp_path / "plain"
    old.touch()
    old.chmod(0o640)
    plain.touch()
    for path in (old, new):
        with files.atomic(path) as file:
            file.write(b"x")
    assert old.stat().st_mode & 0o777 == 0o640
    assert new.stat().st_mode == plain.stat().st_mode


def test_a_link_stays_a_link_and_a_device_a_device(tmp_path):
    (tmp_path / "link").symlink_to("target")
    with files.atomic(tmp_path / "link") as file:
        file.write(b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"x"
    with files.atomic("/dev/null") as file:
        file.write(b"x")
    assert not os.path.isfile("/dev/null")


def test_places_that_cannot_be_written(tmp_path):
    for path, words in ((tmp_path, "it is a folder"), (tmp_path / "no" / "a", 'no folder ".*no"; create it first')):
        with pytest.raises(FileError, match=words):
            write(path, b"x")


def test_reading(tmp_path):
    (tmp_path / "lenet.prototxt").write_bytes(b"x")
    assert files.read_bytes(tmp_path / "lenet.prototxt") == b"x"
    with pytest.raises(FileError, match=r'lnet.prototxt: cannot read: file not found; did you mean "lenet.prototxt"'):
        files.read_bytes(tmp_path / "lnet.prototxt")
    with pytest.raises(FileError, match="it is a folder, expected a file"):
        files.read_bytes(tmp_path)


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    target = tmp_path / "net.caffemodel"
    code = (
        "import os, sys\nfrom caffe.proto import files\n"
        "with files.atomic(sys.argv[1]) as file:\n    file.write(b'half')\n    os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(target)], check=False).returncode == 9
    assert [path.name.startswith(".net.caffemodel.") for path in tmp_path.iterdir()] == [True]
    with files.atomic(target) as file:
        file.write(b"whole")
        with files.atomic(target) as other:  # a file that is still being written is not removed
            other.write(b"other")
    assert [path.name for path in tmp_path.iterdir()] == ["net.caffemodel"]
    assert target.read_bytes() == b"whole"


def test_the_package_has_one_module_of_messages_and_no_other_names():
    import caffe.proto

    assert caffe.proto.__getattr__("caffe_pb2") is caffe_pb2
    with pytest.raises(AttributeError, match=r"'caffe\.proto' has no attribute 'caffe_pb3'"):
        _ = caffe.proto.caffe_pb3
