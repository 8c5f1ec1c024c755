"""The mutation run selects the tests that execute a line, and finds all possible changes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def tool():
    pytest.importorskip("coverage")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        spec = importlib.util.spec_from_file_location("mutate", ROOT / "tools" / "mutate.py")
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "mutate", module)
        spec.loader.exec_module(module)
        yield module


def test_the_tests_of_a_line(tool):
    lines = {"a.py": {1: frozenset({""}), 2: frozenset({"", "wide", "narrow"}), 5: frozenset({"wide"})}}
    executed = tool.Executed(lines, {"wide": 90, "narrow": 3, "": 1}, {})
    assert executed.tests_of("a.py", 2, 2) == ["narrow", "wide"]
    assert executed.tests_of("a.py", 4, 5) == ["wide"]
    assert executed.tests_of("a.py", 1, 1) == ["narrow", "wide"], "a line of the import: those of the file"
    assert executed.tests_of("a.py", 7, 7) == executed.tests_of("b.py", 1, 1) == []


def test_what_a_file_can_be_changed_to(tool, tmp_path, monkeypatch):
    path = tmp_path / "a.py"
    path.write_text("def f(x, y):\n    g(x)\n    return 'é' if x < 3 and not y else x + y\n")
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    texts = [str(each) for each in tool.mutants(path)]
    assert sorted(texts) == [
        "a.py:2: 'g(x)' -> 'pass'",
        "a.py:3: '3' -> '4'",
        "a.py:3: 'not y' -> 'bool(y)'",
        "a.py:3: 'x + y' -> '(x - y)'",
        "a.py:3: 'x < 3 and not y' -> '(x < 3 or not y)'",
        "a.py:3: 'x < 3' -> '(x <= 3)'",
    ]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of a fork where there are threads
def test_a_mutant_is_noticed_by_a_test_or_survives(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "a.py").write_text("LIMIT = 3\n")
    (tmp_path / "tests/test_a.py").write_text(
        "import pathlib\nTEXT = pathlib.Path('a.py').read_text()\n"
        "def test_strict(): assert '3' in TEXT\ndef test_lax(): assert 'LIMIT' in TEXT\n"
    )
    strict, lax = (f"tests/test_a.py::test_{name}" for name in ("strict", "lax"))
    (mutant,) = tool.mutants(tmp_path / "a.py")
    for tests, fate in (
        ([strict], tool.NOTICED),
        ([lax], tool.SURVIVES),
        ([lax, strict], tool.NOTICED),
        ([], tool.NOT_RUN),
    ):
        executed = tool.Executed({"a.py": {1: frozenset(tests)}}, {}, {})
        assert tool.Trial(tmp_path, executed, 60).fate(mutant)[0] == fate
    assert Path(tmp_path / "a.py").read_text() == "LIMIT = 3\n"
