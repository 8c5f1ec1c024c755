"""LMDB's data file, read page by page: the same records as the library's, and one error for each kind of damage."""

import os
import struct

import lmdb
import pytest

from caffe.data.databases.lmdb import Lmdb, LmdbWriter
from caffe.errors import CaffeError, DataError

PAGE = 4096


@pytest.fixture
def database(tmp_path):
    """The path of a database with values in leaf pages and in overflow pages."""
    with LmdbWriter(tmp_path / "db") as writer:
        for index in range(300):
            writer.put(b"%08d" % index, bytes([index % 256]) * (9000 if index % 5 == 0 else 50 + index))
    return tmp_path / "db"


def records(path, start=None):
    source = Lmdb(str(path))
    try:
        return [(key, bytes(value)) for key, value in source.scan(start)]
    finally:
        source.close()


def damage(path, offset, content):
    with open(path / "data.mdb", "r+b") as file:
        file.seek(offset)
        file.write(content)


@pytest.mark.parametrize("safe", ["0", "1"])
def test_the_records_are_those_of_the_library(database, monkeypatch, safe):
    monkeypatch.setenv("CAFFE_SAFE_LMDB", safe)
    with lmdb.open(str(database), readonly=True, lock=False) as environment, environment.begin() as transaction:
        wanted = list(transaction.cursor())
    assert records(database) == wanted
    assert Lmdb(str(database)).count() == 300
    for start in (b"", b"00000100", b"000001001", b"00000299", b"9"):
        assert records(database, start) == [pair for pair in wanted if pair[0] >= start]


def test_a_database_without_records_is_refused(tmp_path):
    with LmdbWriter(tmp_path / "db"):
        pass
    with pytest.raises(CaffeError, match="holds no records"):
        Lmdb(str(tmp_path / "db"))


def test_every_page_that_is_zero_is_one_error(database):
    whole = (database / "data.mdb").read_bytes()
    wanted = records(database)
    errors = 0
    for page in range(len(whole) // PAGE):
        (database / "data.mdb").write_bytes(whole)
        damage(database, page * PAGE, bytes(PAGE))
        try:
            assert page < 2 or len(records(database)) == len(wanted)
        except CaffeError as error:
            errors += f"data.mdb: page {page} is" in str(error)
    assert errors > 60


def test_an_error_names_file_page_and_record(database):
    pages = (database / "data.mdb").read_bytes()
    leaves = [at // PAGE for at in range(0, len(pages), PAGE) if struct.unpack_from("<H", pages, at + 10)[0] == 2]
    damage(database, leaves[-1] * PAGE, bytes(PAGE))
    with pytest.raises(
        DataError, match=rf'"{database}" is damaged.* after record "\d+": data.mdb: page {leaves[-1]} is'
    ):
        records(database)


@pytest.mark.parametrize("safe", ["0", "1"])
def test_a_file_cut_while_it_is_open_is_one_error(database, monkeypatch, safe):
    monkeypatch.setenv("CAFFE_SAFE_LMDB", safe)
    source = Lmdb(str(database))
    os.truncate(database / "data.mdb", 3 * PAGE)
    with pytest.raises(DataError, match=r"page \d+ is beyond the end of the file, which was cut off"):
        list(source.scan())


def test_a_tree_that_goes_round_ends(database):
    """All children of a branch page are the first leaf, so its keys repeat.

    The reader reports that they are out of order.
    """
    pages = bytearray((database / "data.mdb").read_bytes())
    branch = next(at for at in range(2 * PAGE, len(pages), PAGE) if struct.unpack_from("<H", pages, at + 10)[0] == 1)
    lower = struct.unpack_from("<H", pages, branch + 12)[0]
    places = struct.unpack_from(f"<{(lower - 16) // 2}H", pages, branch + 16)
    first = bytes(pages[branch + places[0] : branch + places[0] + 6])
    for place in places:
        damage(database, branch + place, first)
    with pytest.raises(DataError, match="the keys are not in order"):
        records(database)


def test_a_database_in_the_database_is_one_error(tmp_path):
    with lmdb.open(str(tmp_path), max_dbs=1) as environment:
        environment.open_db(b"inner")
    (tmp_path / "lock.mdb").unlink()
    with pytest.raises(DataError, match="a database of its own"):
        records(tmp_path)
