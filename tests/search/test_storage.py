"""Databases as the storage of a search: a PostgreSQL server, several searches in one database, errors without
passwords.
"""

from __future__ import annotations

import io
import json
import sys

import pytest

from caffe.cli import main
from caffe.errors import SolverError
from caffe.search import storage
from tests.search import postgres
from tests.search.test_search import ARGV, killed

optuna = pytest.importorskip("optuna")


def test_searches_of_two_folders_share_a_database(tmp_path):
    kept = optuna.storages.InMemoryStorage()
    names, new = [], []
    for folder in ("a", "b", "a"):
        (tmp_path / folder).mkdir(exist_ok=True)
        study, made = storage.create(optuna, kept, tmp_path / folder / "search.study", "search")
        names.append(study.study_name)
        new.append(made)
    assert names == ["search", "search-2", "search"]
    assert new == [True, True, False]


@pytest.mark.parametrize("address", ["redis://host", "oracle://host/name", "postgresql", "journal.log"])
def test_addresses_of_other_kinds_are_refused(address):
    with pytest.raises(SolverError, match="expected postgresql://USER:PASSWORD@HOST/NAME or mysql://"):
        storage.check_address(address)


@pytest.mark.parametrize(("kind", "driver"), [("postgresql", "psycopg"), ("mysql", "pymysql")])
def test_a_missing_driver_is_one_error_without_the_password(small, capsys, monkeypatch, kind, driver):
    monkeypatch.setitem(sys.modules, driver, None)
    assert main([*ARGV, "-storage", f"{kind}://me:secret@host/name"]) == 1
    error = capsys.readouterr().err.partition("caffe: error: ")[2]
    assert f'"{driver}", which is not installed' in error
    assert f"pip install 'cafetiere[{kind}]'" in error
    assert "secret" not in error


@pytest.mark.long
def test_a_search_on_postgresql_survives_a_kill(small, capsys):
    argv = [*ARGV[:3], "-trials", "3", "-steps", "1000", "-share", "20", "-finalists", "1", "-repeats", "1"]
    with postgres.server() as address:
        argv += ["-storage", address]
        wrong = address.replace("/postgres?", "/nothing?")
        assert main([*argv, "-storage", wrong]) == 1
        error = capsys.readouterr().err.partition("caffe: error: ")[2]
        assert 'database "nothing" does not exist' in error
        assert "secret" not in error
        folder = small / "one"
        begun = lambda: list(folder.glob("search/*/fold0/run_iter_*.solverstate"))  # noqa: E731
        killed(small, [*argv, "-out", "one"], begun)
        assert main([*argv, "-out", "one"]) == 0
        argv[argv.index("1000")] = "10"
        assert main([*argv, "-out", "two"]) == 0
        kept = storage.open_database(optuna, address)
        for name in ("search", "search-2"):
            trials = optuna.load_study(study_name=name, storage=kept).trials
            assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3


def test_the_dashboard_of_optuna_reads_the_journal(small):
    dashboard = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    optuna.create_study(storage=storage.journal(optuna, small / "journal.log"), study_name="search")
    backend = optuna.storages.journal.JournalFileBackend(str(small / "journal.log"))
    app = dashboard.wsgi(optuna.storages.JournalStorage(backend))
    request = {"REQUEST_METHOD": "GET", "PATH_INFO": "/api/studies", "wsgi.input": io.BytesIO(), "SERVER_NAME": "x"}
    answered = b"".join(app({**request, "SERVER_PORT": "80", "wsgi.url_scheme": "http"}, lambda *_: None))
    assert [each["study_name"] for each in json.loads(answered)["study_summaries"]] == ["search"]
