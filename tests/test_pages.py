"""Runs the code blocks of the documents in the order of their page."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format

from caffe.proto import caffe_pb2
from tests.conftest import ROOT
from tests.monitor.helpers import fetch

# Pages whose blocks need only the files of `make demo`, and pages whose blocks need no files.
PAGES = ["README.md", "docs/layers_own.md", "docs/solvers.md", "docs/speed.md"]
FROM_THE_START = ["docs/tour.md"]
BLOCK = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```', re.M | re.S)
DEMO = "examples/mnist/lenet_demo_solver.prototxt"


def environment() -> dict[str, str]:
    """The environment of a user who has installed the package."""
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "2"}


def run(folder: Path, *words: str) -> str:
    """Run a program in a folder as after the installation; return its output."""
    done = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def copy_examples(folder: Path) -> Path:
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("*_lmdb"))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the files of `make demo`."""
    folder = copy_examples(tmp_path_factory.mktemp("pages"))
    (folder / "demo").mkdir()
    for words in (["data", "mnist", "-o", "examples/mnist"], ["train", "-solver", DEMO]):
        run(folder, sys.executable, "-W", "ignore", "-m", "caffe", *words)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run_after_the_demo(page, place):
    run_blocks(page, place)


@pytest.mark.long
@pytest.mark.parametrize("page", FROM_THE_START)
def test_the_blocks_of_a_page_run(page, tmp_path):
    if importlib.util.find_spec("skimage") is None:
        pytest.skip("needs the photographs in the package scikit-image")
    run_blocks(page, copy_examples(tmp_path))


def run_blocks(page: str, place: Path) -> None:
    """Write the files of a page, and run its commands, then its Python."""
    script, folder = [], place
    for kind, title, text in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        if title:
            (place / title).write_text(text)
        elif kind == "python":
            script.append(text)
        elif kind == "prototxt":
            text_format.Parse(text, caffe_pb2.SolverParameter())
        elif not kind:
            folder = run_commands(folder, text)
    if script:
        (place / "page.py").write_text("\n".join(script))
        run(place, sys.executable, "page.py")


def run_page(folder: Path, words: list[str]) -> None:
    """Start a command that serves a page, get the page, and end the command as Ctrl-C does."""
    command = [sys.executable, "-W", "ignore", "-m", "caffe", *words, "-port", "0"]
    with subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = next(found[0] for line in process.stdout if (found := re.search(r"http://[\d.:]+/", line)))
        assert b"<title>" in fetch(url)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def run_commands(folder: Path, text: str) -> Path:
    """Run our commands, `mkdir` and `cd` of a block; return the resulting folder."""
    ours = f"{sys.executable} -W ignore -m caffe "
    for line in text.splitlines():
        if line.startswith("cd "):
            folder = (folder / line.removeprefix("cd ")).resolve()
        elif line.startswith("caffe try"):
            run_page(folder, line.split()[1:])
        elif line.startswith(("caffe ", "mkdir ")):
            run(folder, "bash", "-c", re.sub("^caffe ", ours, line))
    return folder
