"""The list of goals, tested with invented figures, and the run of all parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as everything
from benchmarks import listed, report
from benchmarks.rounds import ROOT

STORED: dict[str, Any] = {
    "training": {
        "machine": "a processor, amx_bf16",
        "rows": {"lenet": {"engines": {"Cafetière": {"ms": 4.0}, "PyTorch tuned": {"ms": 8.0}}}},
    },
    "overhead": {"figures": {"forward": 5.5, "forward with history": 3.0, "backward": 7.0}},
    "building": {"figures": {"ResNet-152, before / now": 3.5, "SSD-300, before / now": 2.0, "help, s": 0.1}},
    "memory": {
        "rows": {
            f"{net}: less imports": {
                "engines": {
                    "Cafetière": {"MB": 70.0},
                    "Cafetière recompute": {"MB": with_it},
                    "PyTorch eager": {"MB": 100.0},
                }
            }
            for net, with_it in (("lenet", 90.0), ("resnet50", 39.0))
        }
    },
    "nms": {"figures": {"against OpenCV": 0.0, "0.02, 400": 0.79, "0.5, all": 4.0}},
}


def rows() -> dict[str, list[str]]:
    page = list(listed.lines(STORED))
    assert page[: len(listed.HEAD)] == listed.HEAD
    cells = [line.strip("| ").split(" | ") for line in page[len(listed.HEAD) :]]
    return {f"{line[0]}: {line[1]}": line[2:] for line in cells}


def test_each_goal_is_met_missed_or_not_measured() -> None:
    found = rows()
    assert len(found) == len(listed.GOALS)
    by_work = {name.split(":")[0]: cells for name, cells in found.items()}
    assert by_work["our own time in forward layer by layer"][:2] == ["forward 5.5 us", "**missed**"]
    assert by_work["our own time in backward layer by layer"][:2] == ["backward 7 us", "met"]
    assert by_work["building ResNet-152, SSD-300, 1,000 tiny layers"][0] == "ResNet-152 3.5, SSD-300 2"
    assert by_work["peak memory of training"][1] == "met"
    assert by_work["peak memory with `recompute"][:2] == ["most 0.39 (resnet50); resnet50 0.39", "met"]
    assert by_work["non-maximum suppression"][1] == "**missed**"
    assert by_work["images a second from JPEG"][:2] == ["not measured", "-"]


def test_missed_goals_point_to_a_heading_of_the_page_on_speed() -> None:
    page = (ROOT / "docs" / "speed.md").read_text()
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in page.splitlines() if line.startswith("#")}
    assert {item.why for item in listed.GOALS} <= headings


def test_a_part_that_fails_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = {"a": 3, "b": 0, "c": everything.STOPPED}
    monkeypatch.setattr(everything, "run", lambda name, arguments, seconds: codes[name])
    parts = {name: everything.Part((), 1) for name in codes} | {"d": everything.Part((), 100)}
    assert everything.everything(parts, 45) == everything.STOPPED
    said = capsys.readouterr().out
    assert "| a | 0 | FAILED, exit code 3 |" in said
    assert "| b | 0 |  |" in said
    assert "| c | 0 | stopped at the limit of 45 minutes |" in said
    assert "| d | 0 | left out: 45.0 of 45 minutes were left |" in said


def test_the_estimates_fit_the_limit() -> None:
    assert sum(part.minutes for part in everything.FULL.values()) <= everything.MINUTES * 1.05


def test_stored_figures_enter_the_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    report.keep("overhead", {"forward": 4.25, "backward": 9.0})
    report.keep("nms", {"against OpenCV": 1.0, "0.02, 400": 0.9})
    page = (tmp_path / "goals.md").read_text()
    assert "| forward 4.25 us | met |" in page
    assert "| backward 9 us | **missed** |" in page
    # the goal is about torchvision; the figure for OpenCV does not count
    assert "| torchvision / ours: 0.8 | not measured |" in page
