"""The recurrent example learns its poem and reproduces it."""

from __future__ import annotations

import runpy
import sys

import pytest

from caffe.solver import get_solver
from tests.conftest import ROOT

FOLDER = ROOT / "examples" / "recurrent"


def trained(folder, monkeypatch, iterations: int | None = None) -> tuple[str, float]:
    """Train for so many iterations (by default those of the solver's file); return the path of the weights and the last
    loss.
    """
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["make_data.py"])
    runpy.run_path(str(FOLDER / "make_data.py"), run_name="__main__")
    text = (FOLDER / "lstm_solver.prototxt").read_text()
    text = text.replace('net: "', f'net: "{ROOT.as_posix()}/')
    (folder / "solver.prototxt").write_text(text)
    solver = get_solver("solver.prototxt")
    assert solver.net.evaluate() == pytest.approx(4.16, abs=0.1)  # log 64: the loss of a uniform guess
    solver.step(iterations or solver.param.max_iter)
    solver.net.save("trained.caffemodel")
    loss = float(solver.net.blobs["loss"].data)
    solver.net.close()
    return "trained.caffemodel", loss


@pytest.fixture
def example(monkeypatch):
    """Run write.py and return its global names."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    names = runpy.run_path(str(FOLDER / "write.py"))
    yield names
    sys.modules.pop("make_data", None)


@pytest.mark.long
def test_a_short_training_knows_most_characters(tmp_path, monkeypatch, example):
    weights, loss = trained(tmp_path, monkeypatch, 160)
    assert loss < 1
    written = example["write"](weights, 12)
    assert written[0] == "T"
    assert len(written) == 12


@pytest.mark.long
def test_the_whole_training_writes_the_whole_poem(tmp_path, monkeypatch, example):
    weights, _ = trained(tmp_path, monkeypatch)
    poem = example["poem"]()
    assert example["write"](weights, len(poem)) == poem


def test_the_streams_read_the_poem_in_a_circle(tmp_path, monkeypatch, example):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["make_data.py"])
    runpy.run_path(str(FOLDER / "make_data.py"), run_name="__main__")
    import h5py

    letters, poem = example["alphabet"](), example["poem"]()
    with h5py.File("examples/recurrent/data/poem.h5") as file:
        character, following, cont = (file[name][...] for name in ("character", "next", "cont"))
    streams = ["".join(letters[int(i)] for i in column) for column in character.T]
    assert streams[0] == poem
    assert all(stream in poem * 2 and len(stream) == len(poem) for stream in streams)
    assert len(set(streams)) == 8
    assert (following[:-1] == character[1:]).all()
    assert (cont[0] == 0).all()
    assert [stream[row] for row, stream in zip(cont[1:].argmin(0) + 1, streams, strict=True)][1:] == ["T"] * 7
