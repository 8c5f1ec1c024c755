"""A separate PostgreSQL server for a test, if PostgreSQL is installed."""

from __future__ import annotations

import getpass
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["server"]


def _program(name: str) -> str:
    """Return the path of a program of PostgreSQL; on Debian, the programs of the server are not on the PATH."""
    found = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))[::-1]), None)
    if found is None:
        pytest.skip(f"PostgreSQL's {name} is not installed (Debian: apt-get install postgresql)")
    return found


@contextmanager
def server() -> Iterator[str]:
    """Yield the address of an empty database for -storage. Skips the test if a program or package is missing.

    The server only listens on a socket in a temporary folder. It does not run as root, so root starts it as another
    user.
    """
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed (pip install 'cafetiere[postgresql]')")
    initdb, postgres = _program("initdb"), _program("postgres")
    user = getpass.getuser()
    other: dict[str, str] = {}
    if os.getuid() == 0:
        known = {entry.pw_name for entry in pwd.getpwall()}
        user = next((name for name in ("postgres", "nobody") if name in known), "")
        if not user:
            pytest.skip("root cannot run PostgreSQL, and there is no user postgres or nobody")
        other = {"user": user}
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    if other:
        shutil.chown(folder, user)
    options = ["-D", str(folder / "data"), "-A", "trust", "-U", "caffe", "-E", "UTF8", "--no-sync"]
    subprocess.run([initdb, *options], check=True, capture_output=True, cwd=folder, **other)  # type: ignore[call-overload]
    settings = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", f"unix_socket_directories={folder}"]
    with open(folder / "log", "wb") as log:
        running = subprocess.Popen(
            [postgres, "-D", str(folder / "data"), *settings], cwd=folder, stdout=log, stderr=log, **other
        )
    try:
        for _ in range(200):
            if (folder / ".s.PGSQL.5432").exists() and "ready to accept" in (folder / "log").read_text():
                break
            time.sleep(0.05)
        else:
            pytest.fail(f"PostgreSQL does not start: {(folder / 'log').read_text()}")
        yield f"postgresql://caffe:secret@/postgres?host={folder}"
    finally:
        running.terminate()
        running.wait(20)
        shutil.rmtree(folder)
