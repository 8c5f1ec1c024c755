"""The commands in README and the documents, and the files that they name."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from caffe.cli import command, flags
from tests.conftest import ROOT
from tools import reference

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "docs/course/*.md", "examples/*/README.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"
)
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]


def blocks(path: Path, kind: str = "") -> list[str]:
    """Return the fenced code blocks of this language in a document."""
    return re.findall(rf"^```{kind}(?: title=.*)?\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_commands_are_understood(path):
    known = command.commands()
    for line in "".join(blocks(path)).splitlines():
        text = line.partition(" > ")[0]
        words = shlex.split(text, comments=True) if text.startswith("caffe ") else []
        if not words or "..." in words or "|" in text:
            continue
        plain, given = flags.parse(words[1:])
        if plain and plain[0] not in ("help", "version"):
            entry = known[plain[0]]
            assert entry.unread(given) == [], line
            entry.check(plain[1:])
        else:
            assert plain or given.get("version"), line


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_python_blocks_are_python(path):
    for block in blocks(path, "python"):
        compile(block, str(path), "exec")


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_files_that_are_named_exist(path):
    text = path.read_text(encoding="utf-8")
    links = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    assert [link for link in links if link and not (path.parent / link).exists()] == []
    named = re.findall(r"`((?:docs|examples|models|tests|src|benchmarks|tools)/[\w./]+)`", text)
    made = ("_lmdb", ".caffemodel", ".solverstate", ".h5", ".npz", ".png", ".txt")
    assert [name for name in named if not name.endswith(made) and not (ROOT / name).exists()] == []


def test_targets_of_make_exist():
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert targets >= {"help", "setup", "demo", "test", "lint", "package"}
    for path in DOCUMENTS:
        named = re.findall(r"(?:^|`)make ([a-z-]+)\b", path.read_text(encoding="utf-8"), re.M)
        assert set(named) <= targets, path


def test_pages_that_come_from_the_code_are_current(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["reference.py", "--check"])
    assert reference.main() == 0, capsys.readouterr().out


def test_the_site_has_every_page():
    named = set(re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    assert named == {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
