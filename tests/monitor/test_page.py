"""The page in a headless Chromium."""

from __future__ import annotations

import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from caffe.monitor.board import Board
from tests.conftest import shared
from tests.monitor.browser import CHROMIUM, Browser
from tests.monitor.helpers import DONE, head, lines, log, served

pytest.importorskip("starlette", reason="needs the package starlette")
pytest.importorskip("uvicorn", reason="needs the package uvicorn")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs the browser chromium")

CHART = "document.querySelector('[aria-label=\"loss\"]').chart"
LAST = f"{CHART}.plot && Math.max(...{CHART}.plot.data[0].filter((x, i) => {CHART}.plot.data[1][i] !== null))"


@pytest.fixture
def browser(tmp_path) -> Iterator[Browser]:
    made = Browser(tmp_path / "profile")
    yield made
    made.close()


@pytest.mark.long
def test_curves_grow_and_nothing_is_fetched_from_elsewhere(browser, tmp_path):
    path = log(tmp_path / "a.log", 20)
    log(tmp_path / "b.log", 10)
    with served(Board([path, tmp_path / "b.log"])) as url:
        browser.open(url)
        browser.wait(f"{CHART}.runs.length === 2")
        flat = f"{CHART.replace('loss', 'rate')}.plot"
        browser.wait(f"{flat}.scales.y.min < 0.09 && {flat}.scales.y.max > 0.11 && {flat}.scales.y.max < 0.3")
        before = browser.value(LAST)
        with open(path, "a") as file:
            file.writelines(lines(i, 0.1) for i in range(200, 400, 10))
        browser.wait(f"{LAST} > {before} + 150")
        browser.value(f"{CHART}.place.focus()")
        browser.press("+")
        browser.wait("!document.getElementById('whole').disabled")
        browser.press("Home")
        browser.wait("document.getElementById('whole').disabled")
        assert "2 runs: a.log 0.1, b.log" in browser.value(f"{CHART}.place.getAttribute('aria-label')")
        assert all(each.startswith((url, "data:", "blob:", "about:")) for each in browser.requests), browser.requests
    assert browser.problems == [] or all("ERR_CONNECTION" in each for each in browser.problems)


@pytest.mark.long
def test_a_finished_log_of_real_caffe_is_shown_with_its_net(browser):
    with served(Board([shared("golden/logs/train.log")])) as url:
        browser.open(url)
        browser.wait(f"{CHART}.runs.length === 1")
        browser.value("document.getElementById('tab-run').click()")
        browser.wait("document.querySelector('#view-run select') !== null")
        browser.value(
            "[...document.querySelectorAll('#view-run button')].find(b => b.textContent === 'Draw the net').click()"
        )
        browser.wait("document.querySelector('.net img')?.naturalWidth > 100")
        assert "conv1 8 x 4 x 10 x 10" in browser.value("document.querySelector('.net img').alt")
        assert browser.problems == []


@pytest.mark.long
def test_a_spike_among_a_million_points_is_drawn_and_found_by_zooming(browser, tmp_path):
    path = tmp_path / "long.log"
    with open(path, "w") as file:
        file.write(head(most=1_000_000))
        file.writelines(
            f"I1129 10:00:00.000000 1 s] Iteration {i}, loss = {9 if i == 654_321 else 1 + 1 / (1 + i / 1e5):.5g}\n"
            for i in range(1_000_000)
        )
        file.write(DONE)
    with served(Board([path])) as url:
        browser.open(url)
        browser.wait(f"{LAST} >= 998000", 60)
        top = f"Math.max(...{CHART}.plot.data[1].filter(y => y !== null))"
        where = f"{CHART}.plot.data[0][{CHART}.plot.data[1].indexOf({top})]"
        assert browser.value(top) == 9
        for span in (20_000, 300, 20):
            x = browser.value(where)
            browser.value(f"{CHART}.zoom([{x} - {span}, {x} + {span}])")
            browser.wait(f"!{CHART}.busy && {CHART}.header.width <= Math.max(1, {span} / 100)")
            assert browser.value(top) == 9
        assert browser.value(where) == 654_321


@pytest.mark.long
def test_every_control_has_a_name_and_light_and_dark_differ(browser, tmp_path):
    log(tmp_path / "a.log", 20)
    log(tmp_path / "b.log", 20, rate=0.5)
    with served(Board([tmp_path])) as url:
        shades = []
        for dark in (False, True):
            browser.dark(dark)
            browser.open(url)
            browser.wait(f"{CHART}.runs.length === 2")
            time.sleep(0.5)
            browser.picture(tmp_path / "page.png")
            shades.append(float(np.mean(cv2.imread(str(tmp_path / "page.png")))))
        assert shades[0] > 200
        assert shades[1] < 60
        for tab in ("curves", "table", "run"):
            browser.value(f"document.getElementById('tab-{tab}').click()")
            time.sleep(0.5)
            tree = browser.call("Accessibility.getFullAXTree")["nodes"]
            roles = {"button", "checkbox", "slider", "combobox", "searchbox", "tab", "group", "image", "progressbar"}
            shown = [node for node in tree if not node["ignored"] and node.get("role", {}).get("value") in roles]
            assert len(shown) > 8
            assert [node for node in shown if not node.get("name", {}).get("value")] == []
        assert "base_lr" in browser.value("document.querySelector('#view-table th.differs').textContent")
