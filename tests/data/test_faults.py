"""Faults outside the program: each raises an error that names it, or is skipped where an option allows this."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import textwrap
from contextlib import closing

import cv2
import h5py
import numpy as np
import pytest

from caffe.data import create_database, open_source
from caffe.data.databases.datum import DatumReader, encode_datum
from caffe.data.pipeline.prefetch import Prefetcher
from caffe.data.pipeline.transformer import BatchTransformer
from caffe.data.streams.records import RecordStream
from caffe.errors import DataError, FileError
from caffe.proto import caffe_pb2
from caffe.proto.caffe_pb2 import Datum
from tests.data.helpers import images, layer, write_lmdb

DATA = (
    'name: "d" type: "Data" top: "data" top: "label" data_param { source: "%s" batch_size: 3 backend: LMDB %s } '
    "transform_param { crop_size: 4 }"
)


def originals():
    """Records of every kind."""
    pixels = images(1, (3, 9, 7))[0]
    yield encode_datum(pixels, 5)
    yield Datum(channels=2, height=2, width=3, float_data=range(12), label=1).SerializeToString()
    for suffix in (".png", ".jpg", ".bmp"):
        data = cv2.imencode(suffix, np.ascontiguousarray(pixels.transpose(1, 2, 0)))[1].tobytes()
        yield Datum(data=data, encoded=True, label=3).SerializeToString()


def mutated(value, rng):
    """Return a record with a few bytes changed, removed or inserted."""
    data = bytearray(value)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(len(data)))
        kind = rng.integers(4)
        if kind == 0:
            data[at] = rng.integers(256)
        elif kind == 1:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            del data[at : at + int(rng.integers(1, 9))]
        else:
            data[at:at] = rng.bytes(int(rng.integers(1, 5)))
        data = data or bytearray(b"\0")
    return bytes(data)


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_mutated_records_are_read_or_refused(count, capfd):
    rng = np.random.default_rng(count)
    values = list(originals())
    readers = [DatumReader(), DatumReader(color=True), DatumReader(color=False)]
    for reader in readers:  # after valid records, the reader uses its fast path
        if reader.color is not False:
            reader(values[0])
    good = 0
    for number in range(count):
        value = mutated(values[number % len(values)], rng)
        try:
            image, label = readers[number % 3](value)
        except DataError:
            pass
        else:
            good += 1
            assert image.ndim == 3
            assert image.size > 0
            assert image.dtype in (np.uint8, np.float32)
            assert isinstance(label, int)
    assert count / 20 < good < count


@pytest.mark.parametrize("workers", [1, 3])
def test_a_database_of_mutated_records_is_read_with_skips(workers, tmp_path, capfd):
    rng, values, usable = np.random.default_rng(1), list(originals()), 0
    made = BatchTransformer(caffe_pb2.TransformationParameter(crop_size=4), caffe_pb2.TRAIN)
    with create_database("lmdb", tmp_path / "db") as writer:
        for number in range(300):
            value = mutated(values[number % 5 // 3 * 3], rng) if number else values[0]
            writer.put(b"%04d" % number, value)
            try:
                image, _ = DatumReader()(value)
                usable += made.top_shape(image.shape)[0] == 3
            except DataError:
                pass
    text = DATA % (tmp_path / "db", f"skip_damaged: true workers: {workers}")
    with closing(layer(text)) as source:
        for _ in range(usable // 3):
            source()
        assert source.skipped <= 300 - usable // 3 * 3
        assert source.skipped >= 300 - usable - 5


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_lmdb_is_refused(share, tmp_path):
    write_lmdb(tmp_path / "db", images(40, (3, 20, 20)))
    file = tmp_path / "db" / "data.mdb"
    os.truncate(file, int(file.stat().st_size * share))
    with pytest.raises(FileError, match=r"damaged|truncated|as an LMDB database"):
        open_source("LMDB", str(tmp_path / "db"))


def test_a_record_that_is_no_image_is_named(tmp_path):
    with create_database("lmdb", tmp_path / "db") as writer:
        writer.put(b"a", encode_datum(images(1)[0], 1))
        writer.put(b"b", Datum(data=b"this is text", encoded=True).SerializeToString())
    with closing(layer(DATA % (tmp_path / "db", ""))) as source:
        for _ in range(2):
            with pytest.raises(DataError, match=r'layer "d" \(Data\): .*record "b" cannot be decoded'):
                source()


def test_a_vanished_hdf5_file_is_named(tmp_path):
    for name in ("one.h5", "two.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            file["x"] = np.ones((3, 2))
    (tmp_path / "list.txt").write_text(f"{tmp_path}/one.h5\n{tmp_path}/two.h5\n")
    text = 'name: "h" type: "HDF5Data" top: "x" hdf5_data_param { source: "%s" batch_size: 3 }' % (
        tmp_path / "list.txt"
    )
    with closing(layer(text)) as source:
        (tmp_path / "two.h5").unlink()
        source()
        with pytest.raises(FileError, match=r'layer "h" \(HDF5Data\): HDF5 file ".*two.h5" not found'):
            source()


class Killed(DatumReader):
    """Raised to end the thread that reads the third record."""

    def __call__(self, value):
        image, label = super().__call__(value)
        if label == 2:
            raise SystemExit
        return image, label


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_ends_is_an_error_not_a_hang(workers, tmp_path):
    write_lmdb(tmp_path / "db", images(9, (3, 5, 7)))
    transformer = BatchTransformer(caffe_pb2.TransformationParameter(), caffe_pb2.TEST)
    stream = RecordStream(open_source("LMDB", str(tmp_path / "db")), Killed(), transformer, 2)
    stream.workers = workers
    prefetcher = Prefetcher(stream, stream.start(0), 2)
    prefetcher.next()
    for _ in range(2):
        with pytest.raises(DataError, match="ended by SystemExit"):
            prefetcher.next()
    prefetcher.close()
    stream.close()


@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
def test_a_read_only_disk_is_one_error(backend, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(FileError, match=r"cannot write the LM?.*DB database .*Read-only file system"):
        create_database(backend, tmp_path / "db")
    assert not list(tmp_path.iterdir())


FULL = """
import resource, signal, sys
import numpy as np
from caffe.data import create_database
from caffe.errors import FileError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    with create_database(sys.argv[1], "db") as writer:
        for number in range(30):
            writer.put(b"%d" % number, np.random.default_rng(number).bytes(1 << 16))
except FileError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
def test_a_full_disk_is_one_error_and_leaves_nothing(backend, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL), backend],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.stdout.startswith(f"refused: cannot write to {'LMDB' if backend == 'lmdb' else 'LevelDB'} database"), run
    assert not list(tmp_path.iterdir())
