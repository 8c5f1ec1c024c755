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
    """A path among the reference files: the whole set, or else the part of it in the repository."""
    path = SHARED.joinpath(*parts)
    own = ROOT.joinpath("tests", *parts)
    return own if not path.exists() and parts[0] == "golden" and own.exists() else path


def shared(*parts: str) -> Path:
    """A path among the reference files; the test is skipped where they are missing."""
    path = reference(*parts)
    if not path.exists():
        pytest.skip(f"reference files not found at {path}; set CAFETIERE_SHARED")
    return path


def shared_cases(folder: str, pattern: str = "*.npz") -> list:
    """One pytest parameter per reference file of a folder; a single skipped one where they are missing."""
    root = reference(*folder.split("/"))
    if not root.is_dir():
        reason = f"reference files not found at {root}; set CAFETIERE_SHARED"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="missing")]
    return [pytest.param(path, id=path.stem) for path in sorted(root.glob(pattern))]


def pytest_collection_finish():
    """Collected tests stay to the end; frozen, they are not gone through by each run of the garbage collector."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter, config):
    """With -rA, as `make test-all` has it: the reference files passed by layer type, and the layers' sizes."""
    if "A" in config.getoption("reportchars"):
        from tests.layers import tables

        for line in tables.lines(terminalreporter.stats):
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _log_as_it_was():
    """What a test does to the log (level, handlers) ends with it."""
    logger = logging.getLogger("caffe")
    level, handlers, propagate = logger.level, list(logger.handlers), logger.propagate
    yield
    logger.setLevel(level)
    logger.handlers[:], logger.propagate = handlers, propagate


@pytest.fixture
def own_types(monkeypatch):
    """Layer types that are defined in the test are unknown after it."""
    monkeypatch.setattr(LAYERS, "items", dict(LAYERS.items))


def our_commands(text: str) -> str:
    """A log of the reference tools with our commands in place of the paths of its executables."""
    return re.sub(r"\./build/tools/(\w+)", r"'caffe \1'", text)
