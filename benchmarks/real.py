"""Finds a Python with real Caffe, or creates one from the wheel on PyPI, which requires Python 3.8."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

VENV = Path(__file__).parent.parent / ".venv-caffe"
WHEEL = ("kendryte-caffe==1.0.0.20210829", "numpy<1.24", "protobuf<3.21")
PROBE = "import caffe; caffe.Net"


class Missing(Exception):
    """Real Caffe is not available; the message says why."""


@functools.cache
def interpreter() -> str:
    """Return the Python in CAFETIERE_REAL_CAFFE, or that of `.venv-caffe`, which is created if Python 3.8 is found."""
    given = os.environ.get("CAFETIERE_REAL_CAFFE", "")
    python = given or str(VENV / "bin" / "python")
    if not given and not (VENV / "complete").exists():
        _install()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        run = subprocess.run([python, "-c", PROBE], env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Missing(f"real Caffe: {python}: {error.strerror}") from None
    if run.returncode:
        raise Missing(f"real Caffe: {python} cannot import it: {run.stderr.strip().splitlines()[-1]}")
    return python


def _install() -> None:
    base = next((python for python in _pythons() if _works(python)), None)
    if base is None:
        raise Missing("real Caffe: its wheel needs Python 3.8, which is neither on the PATH nor in pyenv")
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", *WHEEL]
    for command in ([base, "-m", "venv", "--clear", str(VENV)], pip):
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            why = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise Missing(f"real Caffe: `{' '.join(command)}` failed: {why}")
    (VENV / "complete").touch()


def _pythons() -> Iterator[str]:
    found = shutil.which("python3.8")
    if found:
        yield found
    root = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    yield from map(str, sorted(root.glob("versions/3.8.*/bin/python3.8")))


def _works(python: str) -> bool:
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0
