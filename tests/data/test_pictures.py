"""Parallel decoding, damaged records, shares of the data."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import cv2
import numpy as np
import pytest

from caffe.data import create_database, open_source
from caffe.data.databases.datum import DatumReader, encode_datum
from caffe.data.pipeline import shard
from caffe.data.pipeline.pool import ordered
from caffe.data.pipeline.shard import Shard
from caffe.data.pipeline.transformer import BatchTransformer
from caffe.data.streams import decoding as pictures
from caffe.data.streams.images import ImageStream
from caffe.data.streams.records import RecordStream
from caffe.data.streams.rows import RowStream
from caffe.errors import DataError
from caffe.proto import caffe_pb2
from caffe.proto.caffe_pb2 import Datum
from tests.data.helpers import images, write_lmdb, write_png

PARAM = caffe_pb2.TransformationParameter(crop_size=20, mirror=True, rotation=10, noise=3)


def coloured(count):
    """A database of compressed images of several sizes. The label of a record is its number."""
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (24 + index % 5, 30 - index % 3, 3), np.uint8)
        data = cv2.imencode(".png", pixels)[1].tobytes()
        yield b"%04d" % index, Datum(data=data, encoded=True, label=index).SerializeToString()


@pytest.fixture
def encoded(tmp_path):
    with create_database("lmdb", tmp_path / "db") as writer:
        for key, value in coloured(23):
            writer.put(key, value)
    return str(tmp_path / "db")


def stream(path, workers=1, batch_size=7, param=PARAM, skip=False):
    made = RecordStream(open_source("LMDB", path), DatumReader(), BatchTransformer(param, caffe_pb2.TRAIN), batch_size)
    made.workers, made.skip = workers, skip
    return made


def batches(made, count, seed=5):
    state, result = made.start(seed), []
    for _ in range(count):
        arrays, state = made.batch(state)
        result.append(arrays)
    made.close()
    return [np.concatenate(parts) for parts in zip(*result, strict=True)], state


@pytest.mark.parametrize("workers", [0, 2, 5])
def test_batches_do_not_depend_on_the_number_of_workers(workers, encoded):
    (data, labels), state = batches(stream(encoded), 6)
    assert labels.tolist() == [index % 23 for index in range(42)]
    (again, _), after = batches(stream(encoded, workers), 6)
    np.testing.assert_array_equal(data, again)
    assert after == state


@pytest.mark.parametrize("workers", [1, 2])
def test_each_image_of_a_batch_is_drawn_for_by_itself(workers, tmp_path):
    image = images(1, (3, 24, 22))[0]
    path = str(write_lmdb(tmp_path / "db", [image] * 3))
    param = caffe_pb2.TransformationParameter(rotation=20)
    (data, _), _ = batches(stream(path, workers, 3, param), 2)
    assert len({picture.tobytes() for picture in data}) == 6


def bad(tmp_path, number, count=9):
    """Return a database in which the records `number` are damaged."""
    with create_database("lmdb", tmp_path / "bad") as writer:
        for index, image in enumerate(images(count, (3, 24, 22))):
            value = encode_datum(image, index)
            writer.put(b"key%d" % index, value[:-30] if index in number else value)
    return str(tmp_path / "bad")


@pytest.mark.parametrize("workers", [1, 3])
def test_a_damaged_record_is_named(workers, tmp_path):
    made = stream(bad(tmp_path, {3}), workers)
    with pytest.raises(DataError, match='bad": record "key3" is not a Datum'):
        batches(made, 1)
    made.close()


@pytest.mark.parametrize("workers", [1, 3])
def test_damaged_records_are_skipped_and_counted(workers, tmp_path, caplog):
    made = stream(bad(tmp_path, {0, 3, 4, 8}), workers, 3, skip=True)
    assert made.shapes(made.start(1))[0] == (3, 3, 20, 20)
    caplog.clear()
    (_, labels), state = batches(made, 4)
    assert labels.tolist() == [1, 2, 5, 6, 7, 1, 2, 5, 6, 7, 1, 2]
    assert state["skipped"] == 9
    assert [record.getMessage().split()[2] for record in caplog.records][:5] == [
        '"key0"',
        '"key3"',
        '"key4"',
        '"key8"',
        '"key0"',
    ]


def test_a_database_without_a_good_record_ends_in_an_error(tmp_path):
    made = stream(bad(tmp_path, set(range(9))), skip=True)
    with pytest.raises(DataError, match="so are the 1000 before it"):
        made.shapes(made.start(1))
    with pytest.raises(DataError, match="so are the 1000 before it"):
        made.batch(made.start(1))
    made.close()


def test_only_damaged_records_in_a_row_end_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_HOPELESS", 3)
    (_, labels), state = batches(stream(bad(tmp_path, {1, 2, 4, 5, 7, 8}), 1, 6, skip=True), 1)
    assert labels.tolist() == [0, 3, 6, 0, 3, 6]
    assert state["skipped"] == 10


def shares(make, count=3, batches_each=7):
    """Return the labels that each of `count` processes reads."""
    result = []
    for rank in range(count):
        made = make()
        made.shard = Shard(rank, count)
        result.append(batches(made, batches_each)[0][-1].ravel().tolist())
    return result


def test_each_process_reads_every_nth_record(tmp_path):
    path = str(write_lmdb(tmp_path / "db", images(11, (3, 24, 22))))
    for rank, labels in enumerate(shares(lambda: stream(path, batch_size=2))):
        assert labels == [index % 11 for index in range(rank, 42, 3)]


@pytest.mark.parametrize("shuffle", [False, True])
def test_each_process_reads_its_share_of_images_and_rows(shuffle, tmp_path):
    for index, image in enumerate(images(5, (3, 24, 22))):
        write_png(tmp_path / f"{index}.png", image)

    def listed():
        lines = [(str(tmp_path / f"{index}.png"), index) for index in range(5)]
        made = ImageStream(lines, BatchTransformer(PARAM, caffe_pb2.TRAIN), 2)
        made.shuffle = shuffle
        return made

    sizes = {"a": 4, "b": 1, "c": 2}

    def rows():
        starts = {"a": 0, "b": 4, "c": 5}
        return RowStream(list(sizes), ["x"], 2, shuffle, lambda path, _: (np.arange(sizes[path]) + starts[path],))

    for make, total in ((listed, 5), (rows, 7)):
        whole = shares(make, 1, 21)[0]
        assert sorted(whole[:total]) == list(range(total))
        for rank, labels in enumerate(shares(make)):
            assert labels == whole[rank::3][:14]


def test_which_share_is_this_process_s(monkeypatch):
    monkeypatch.setattr(shard, "_assigned", {})
    assert shard.current() == (0, 1)
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(DataError, match="RANK is 2 and WORLD_SIZE 1"):
        shard.current()
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert shard.current() == (2, 3)
    shard.assign(rank=1)
    assert shard.current() == (1, 3)
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(DataError, match='WORLD_SIZE is "many"'):
        shard.current()


def test_ordered_keeps_order_and_bound():
    taken, lock = [], threading.Lock()

    def items():
        for number in range(60):
            with lock:
                taken.append(number)
            yield number

    def slowly(number):
        time.sleep(0.001 * (number % 3))
        return number

    with closing(ordered(slowly, items(), 2)) as results:
        for expected, got in zip(range(30), results, strict=False):
            assert got == expected
            assert len(taken) <= expected + 2 * 4 + 2
    assert len(taken) < 45


def test_ordered_raises_an_error_in_its_turn():
    def picky(number):
        if number == 5:
            raise DataError("five")
        return number

    results = ordered(picky, range(20), 3)
    assert [next(results) for _ in range(5)] == list(range(5))
    with pytest.raises(DataError, match="five"):
        next(results)
