"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import logging
import os
import re
from pathlib import Path

import pytest

from caffe.registry import LAYERS

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("CAFETIERE_SHARED", ROOT.parent / "shared"))


def reference(*parts: str) -> Path:
    """The path of a reference file: in the whole set if it is available, otherwise in the part in the repository."""
    path = SHARED.joinpath(*parts)
    own = ROOT.joinpath("tests", *parts)
    return own if not path.exists() and parts[0] == "golden" and own.exists() else path


def shared(*parts: str) -> Path:
    """The path of a reference file of the whole set; without the set, the test is skipped."""
    path = reference(*parts)
    if not path.exists():
        pytest.skip(f"reference files not found at {path}; set CAFETIERE_SHARED")
    return path


def shared_cases(folder: str, pattern: str = "*.npz") -> list:
    """Return a pytest parameter for each reference file of a folder; without the files, a single skipped parameter."""
    root = reference(*folder.split("/"))
    if not root.is_dir():
        reason = f"reference files not found at {root}; set CAFETIERE_SHARED"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="missing")]
    return [pytest.param(path, id=path.stem) for path in sorted(root.glob(pattern))]


def pytest_collection_finish():
    """Freeze the collected tests, which live until the end, so that the garbage collector does not scan them again."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter, config):
    """With -rA, which `make test-all` sets, print the passed reference files by layer type, and the layers' sizes."""
    if "A" in config.getoption("reportchars"):
        from tests.layers import tables

        for line in tables.lines(terminalreporter.stats):
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _log_as_it_was():
    """Restore the level and the handlers of the log after each test."""
    logger = logging.getLogger("caffe")
    level, handlers, propagate = logger.level, list(logger.handlers), logger.propagate
    yield
    logger.setLevel(level)
    logger.handlers[:], logger.propagate = handlers, propagate


@pytest.fixture
def own_types(monkeypatch):
    """Unregister, after the test, the layer types that it defines."""
    monkeypatch.setattr(LAYERS, "items", dict(LAYERS.items))


def our_commands(text: str) -> str:
    """Return a log of the reference tools in which our commands replace the paths of its executables."""
    return re.sub(r"\./build/tools/(\w+)", r"'caffe \1'", text)
