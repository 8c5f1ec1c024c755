"""The server: its responses, the clients that it accepts, and that the page loads nothing from other servers."""

from __future__ import annotations

import json
import re
import struct
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import caffe.monitor
from caffe.errors import MissingExtra
from caffe.monitor.board import Board
from tests.monitor.helpers import fetch, lines, log, served

pytest.importorskip("starlette", reason="needs the package starlette")
pytest.importorskip("uvicorn", reason="needs the package uvicorn")
PAGE = Path(caffe.monitor.__file__).with_name("page")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    log(folder / "a.log", 100)
    log(folder / "b.log", 50, rate=0.5)
    with served(Board([folder])) as url:
        wait(url)
        yield url


def wait(url: str) -> None:
    while any(run["state"] in ("reading", "no data") for run in fetch(f"{url}api/runs")["runs"]):
        pass


def parts(answer: bytes) -> tuple[dict, np.ndarray]:
    (length,) = struct.unpack_from("<I", answer)
    header = json.loads(answer[4 : 4 + length])
    return header, np.frombuffer(answer, np.float32, offset=4 + length).reshape(-1, 3, header["columns"])


def test_the_page_names_no_other_place():
    ours = {path.name: path.read_text() for path in PAGE.iterdir()}
    assert {"monitor.html", "uPlot.iife.min.js", "uPlot.min.css", "uPlot.LICENSE"} <= set(ours)
    allowed = {"http://www.w3.org/2000/svg"}
    for name, text in ours.items():
        if name != "uPlot.LICENSE":
            text = re.sub(r"^/\*.*?\*/", "", text, flags=re.DOTALL)  # the licence comment of uPlot names its address
            assert set(re.findall(r"(?:https?:)?//[\w.-]+\.\w[^\s\"']*", text)) <= allowed, name


def test_runs_and_curves(site):
    runs = fetch(f"{site}api/runs")["runs"]
    assert [(run["name"], run["iteration"], run["settings"]["base_lr"]) for run in runs] == [
        ("a.log", 990, "0.1"), ("b.log", 490, "0.5")
    ]  # fmt: skip
    header, values = parts(fetch(f"{site}api/curves?tag=loss&columns=100"))
    assert header["runs"] == [0, 1]
    assert header["extent"] == [0, 990]
    assert np.nanmax(values[0]) == 2
    header, values = parts(fetch(f"{site}api/curves?tag=loss&columns=400&low=100&high=200&runs=1"))
    assert (header["x0"], header["width"], header["runs"]) == (100, 1, [1])
    np.testing.assert_allclose(values[0, 0, 10], 2 / 12, rtol=1e-5)


def test_a_runs_details_its_net_and_tables(site):
    detail = fetch(f"{site}api/run?run=0")
    assert detail["shapes"] == {"data": [2, 3], "ip": [2, 5]}
    assert b"InnerProduct" in fetch(f"{site}api/net?run=0")
    table = fetch(f"{site}api/table?tag=loss&runs=1").decode().splitlines()
    assert table[:2] == ["run,iteration,seconds,loss", "b.log,0,0.0,2"]
    assert len(table) == 51
    assert fetch(f"{site}api/system")["cores"] >= 1


def test_a_confusion_matrix_beside_the_log(tmp_path):
    path = log(tmp_path / "a.log", 3)
    (tmp_path / "a_confusion.csv").write_text("is \\ called,cat,dog\ncat,3,1\ndog,0,2\n")
    (tmp_path / "a_confusion_old.csv").write_text("cat,3,x\ncat,3,x\n")
    with served(Board([path])) as url:
        assert fetch(f"{url}api/run?run=0")["confusions"] == ["a_confusion.csv", "a_confusion_old.csv"]
        assert fetch(f"{url}api/confusion?run=0") == {"names": ["cat", "dog"], "rows": [[3, 1], [0, 2]]}
        assert "is not a table of counts" in fetch(f"{url}api/confusion?run=0&number=1")["error"]
        assert "has 2 confusion matrices" in fetch(f"{url}api/confusion?run=0&number=2")["error"]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("run?run=7", "there is no run 7; expected 0 to 1"),
        ("run?run=x", 'run is "x", expected a number'),
        ("curves?tag=loss&low=nan", "low is nan"),
        ("curves?tag=loss&axis=z", 'axis is "z", expected iterations or seconds'),
        ("image?run=0&tag=t", "has 0 pictures"),
    ],
)
def test_a_question_that_makes_no_sense_gets_a_message(site, query, told):
    assert told in fetch(f"{site}api/{query}")["error"]


def test_extreme_windows_are_answered(site):
    for query in ("low=5&high=5", "low=9&high=1", "low=-1e14&high=1e14", "columns=1e9", "columns=-4", "tag=nothing"):
        for axis in ("iterations", "seconds"):
            header, values = parts(fetch(f"{site}api/curves?tag=loss&axis={axis}&{query}"))
            assert values.shape[2] == header["columns"] <= 4001


def test_a_page_of_another_name_is_refused(site):
    assert b"Invalid host" in fetch(site, Host="evil.example")
    assert b"Training monitor" in fetch(site)
    told = fetch(f"{site}api/doctor?run=0", b"", Origin="http://evil.example")
    assert told == {"error": "this request came from another site's page"}


@pytest.mark.long
def test_the_doctor_reads_a_log(site):
    assert fetch(f"{site}api/doctor?run=0", b"", Origin=site.rstrip("/"))["checks"] == []


@pytest.mark.long
def test_ten_viewers_hear_of_a_log_that_grows(tmp_path):
    path = log(tmp_path / "a.log", 10)
    heard = []

    def listen(url: str) -> None:
        with urllib.request.urlopen(f"{url}api/events", timeout=20) as stream:
            while b"data: " not in (line := stream.readline()):
                pass
            heard.append(json.loads(line.removeprefix(b"data: ")))

    with served(Board([path])) as url:
        wait(url)
        threads = [threading.Thread(target=listen, args=(url,)) for _ in range(10)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            with open(path, "a") as file:
                file.write(lines(1000, 0.5))
            threads[0].join(0.3)
            threads[-1].join(0.3)
        assert fetch(f"{url}api/runs")["runs"][0]["iteration"] == 1000
    assert heard == [[0]] * 10


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "starlette.applications", None)
    from caffe.monitor.server import application

    with pytest.raises(MissingExtra, match=r"pip install 'cafetiere\[monitor\]'"):
        application(Board([]))
