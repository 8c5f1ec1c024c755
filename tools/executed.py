"""Records which tests execute which lines of the sources, by the package coverage. Used by tools/mutate.py.

`record` runs tests with this module as a plugin of pytest. Lines that only processes started by a test execute are not
seen.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_FILE, _SOURCES = "CAFETIERE_EXECUTED", "CAFETIERE_SOURCES"


@dataclass
class Executed:
    """The result of `record`: the tests by line, and for each test the number of executed lines and its run time."""

    lines: dict[str, dict[int, frozenset[str]]]
    sizes: dict[str, int]
    seconds: dict[str, float]

    def tests_of(self, file: str, line: int, last: int) -> list[str]:
        """Return the tests that execute one of the lines; for lines that run only at import, those of the whole file.

        The tests that execute the fewest lines in all come first.
        """
        known = self.lines.get(file, {})
        found = {test for number in range(line, last + 1) for test in known.get(number, ())} - {""}
        if not found and any(number in known for number in range(line, last + 1)):
            found = {test for tests in known.values() for test in tests} - {""}
        return sorted(found, key=lambda test: (self.sizes.get(test, 0), test))


def record(tree: Path, sources: list[str], tests: list[str], file: Path, environment: dict[str, str]) -> None:
    """Run the quick tests in a copy of the repository and write what they execute to a file."""
    environment = {
        **environment,
        _FILE: str(file),
        _SOURCES: os.pathsep.join(sources),
        "PYTHONPATH": os.pathsep.join([str(tree / "tools"), environment["PYTHONPATH"]]),
    }
    words = [sys.executable, "-m", "pytest", "-q", "-m", "not long", "-p", "no:cacheprovider", "-p", "executed", *tests]
    if subprocess.run(words, cwd=tree, env=environment).returncode:
        raise SystemExit("the tests fail without a mutant; a mutation run would say nothing")


def load(file: Path) -> Executed:
    """Read what `record` wrote."""
    import coverage

    data = coverage.CoverageData(str(file))
    data.read()
    lines: dict[str, dict[int, frozenset[str]]] = {}
    sizes: dict[str, int] = {}
    for name in data.measured_files():
        lines[Path(name).as_posix()] = {at: frozenset(tests) for at, tests in data.contexts_by_lineno(name).items()}
    for tests_by_line in lines.values():
        for tests in tests_by_line.values():
            for test in tests:
                sizes[test] = sizes.get(test, 0) + 1
    with sqlite3.connect(f"{file}.seconds") as table:
        seconds = dict(table.execute("select test, seconds from times"))
    return Executed(lines, sizes, seconds)


class _Recorder:
    """The plugin: one context of coverage for each test."""

    def __init__(self, file: str, sources: list[str]) -> None:
        import coverage

        self.coverage = coverage.Coverage(data_file=file, source=sources, config_file=False)
        self.coverage.set_option("run:relative_files", True)
        self.seconds: dict[str, float] = {}
        self.coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.coverage.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            self.coverage.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        self.coverage.stop()
        self.coverage.save()
        with sqlite3.connect(f"{os.environ[_FILE]}.seconds") as table:
            table.execute("create table times (test text primary key, seconds real)")
            table.executemany("insert into times values (?, ?)", self.seconds.items())


# Made before pytest imports the first conftest, whose imports execute lines of the sources.
_RECORDER = _Recorder(os.environ[_FILE], os.environ[_SOURCES].split(os.pathsep)) if _FILE in os.environ else None


def pytest_configure(config: pytest.Config) -> None:
    if _RECORDER is not None:
        config.pluginmanager.register(_RECORDER)
