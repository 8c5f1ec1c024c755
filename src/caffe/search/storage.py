"""The storage of a search's trials: a journal file, or a database that several machines can reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from caffe.errors import SolverError, require_extra
from caffe.proto import files
from caffe.search.lease import JournalLock

__all__ = ["check_address", "create", "journal", "open_database"]

_DRIVERS = {"postgresql": "psycopg", "mysql": "pymysql"}
"""The Python package that connects to each kind of database. The extra has the name of the kind."""
_FORM = "postgresql://USER:PASSWORD@HOST/NAME or mysql://USER:PASSWORD@HOST/NAME"


def check_address(address: str) -> None:
    """Raise a SolverError if this is not the address of a database that a search can use."""
    kind = address.partition(":")[0].partition("+")[0]
    if kind == "sqlite":
        raise SolverError("-storage: SQLite loses trials of several processes; remove it to use a journal file")
    if kind not in _DRIVERS or "://" not in address:
        raise SolverError(f"-storage: expected {_FORM}; remove it to use a journal file")


def journal(optuna: Any, path: Path) -> Any:
    """Return the storage in a journal file."""
    backend = optuna.storages.journal.JournalFileBackend(str(path), JournalLock(path))
    return optuna.storages.JournalStorage(backend)


def open_database(optuna: Any, address: str) -> Any:
    """Return the storage in a database. Missing tables are created.

    If the address names no driver, psycopg or PyMySQL is used; SQLAlchemy's defaults are older. Raises MissingExtra,
    and SolverError without the password.
    """
    import sqlalchemy

    check_address(address)
    try:
        url = sqlalchemy.engine.make_url(address)
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        raise SolverError(f"-storage: the address cannot be read ({type(error).__name__}); expected {_FORM}") from error
    kind, _, driver = url.drivername.partition("+")
    if not driver:
        url = url.set(drivername=f"{kind}+{_DRIVERS[kind]}")
    shown = url.render_as_string(hide_password=True)
    if driver in ("", _DRIVERS[kind]):
        require_extra(_DRIVERS[kind], kind, f"-storage {shown}")
    try:
        # A connection for each access: a trial may take longer than the server keeps an idle connection open.
        options = {"poolclass": sqlalchemy.pool.NullPool}
        return optuna.storages.RDBStorage(url.render_as_string(hide_password=False), options)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, RuntimeError) as error:
        fact = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise SolverError(
            f"-storage {shown}: cannot be opened: {fact}; the server must run, and the database must exist"
        ) from error


def create(optuna: Any, storage: Any, place: Path, name: str, **settings: Any) -> tuple[Any, bool]:
    """Open or create the study whose name the file `place` of the search's folder stores. Also returns if it is new.

    Searches in several folders can share a database: the first study is called `name`, the next one `name-2` and so on.
    Hyperband draws from the name, so the name is the same in each run on an empty database. The caller holds the
    folder's lock.
    """
    if place.exists():
        known = place.read_text(encoding="utf-8").strip()
        new = known not in optuna.get_all_study_names(storage)
        return optuna.create_study(storage=storage, study_name=known, load_if_exists=True, **settings), new
    number = 1
    while True:
        mine = name if number == 1 else f"{name}-{number}"
        try:
            study = optuna.create_study(storage=storage, study_name=mine, **settings)
            break
        except optuna.exceptions.DuplicatedStudyError:
            number += 1
    with files.atomic(place) as file:
        file.write(f"{mine}\n".encode())
    return study, True
