"""The course: each page has commands, pictures and an exercise, and its commands run."""

from __future__ import annotations

import re
import runpy

import pytest

from caffe.cli import main
from tests.conftest import ROOT
from tools import course


@pytest.mark.parametrize("page", course.PAGES)
def test_a_page_has_commands_pictures_and_an_exercise(page):
    text = course.text(page)
    assert text.startswith("# ")
    assert re.findall("^## (.*)$", text, re.M)[-1] == "Exercise"
    commands = course.commands(page)
    assert commands[0] == ["python", "examples/course/make_course.py"]
    assert len(commands) >= 3
    assert course.pictures(page)
    for name in course.pictures(page):
        assert (ROOT / "docs" / "course" / "images" / name).stat().st_size > 5000
    assert f"({page}.md)" in course.text("index")


def here(words, folder):
    """Run a command in this process, which is faster."""
    if words[0] == "caffe":
        return main(words[1:]), "", ""
    runpy.run_path(words[1], run_name="__main__")
    return 0, "", ""


@pytest.mark.long
def test_the_shortest_page_runs_and_makes_its_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    course.run("data", tmp_path, here)
    for path in course.pictures("data").values():
        assert (tmp_path / "course" / path).stat().st_size > 5000


@pytest.mark.long
@pytest.mark.parametrize("page", course.PAGES[1:])
def test_pages_run_and_make_their_pictures(page, tmp_path):
    course.run(page, tmp_path)
    for path in course.pictures(page).values():
        assert (tmp_path / "course" / path).stat().st_size > 5000
