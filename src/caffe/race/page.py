"""The interactive page of the race: a self-contained HTML file with controls for rate, momentum, start and noise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from caffe.proto import files
from caffe.race.paths import RACERS, Racer
from caffe.race.surfaces import Surface

__all__ = ["SETTINGS", "live", "racer_data", "surface_data", "write"]

SETTINGS = ("momentum", "momentum2", "delta", "rms_decay", "momentum_decay", "trust_coefficient")
"""The settings that the page's rules use, by their names in the solver."""
_LINE_SEARCH = ("LBFGS", "BFGS", "Newton")


def live(racer: Racer) -> bool:
    """Whether the page can run the rule. Rules with a line search are not supported."""
    return racer.type not in _LINE_SEARCH


def racer_data(racer: Racer) -> dict[str, Any]:
    """Return a racer's data for the page. The settings have the precision of their protobuf fields."""
    param = racer.parameters(racer.rate)
    settings = {name: getattr(param, name) for name in SETTINGS}
    moves = "momentum" in racer.settings and racer.type != "AdaDelta"
    return {"name": racer.name, "type": racer.type, "rate": racer.rate, "settings": settings, "momentum": moves} | {
        "follows": racer.follows
    }


def surface_data(surface: Surface) -> dict[str, Any]:
    """Return a surface's data for the page: its formulas in JavaScript, and drawing parameters."""
    _, _, values = surface.grid(101)
    shown = {name: getattr(surface, name) for name in ("name", "window", "start", "about", "noise", "minimum", "pace")}
    return {**shown, "scale": max(1e-9, float(values.max()) - surface.minimum), **surface.javascript}


def write(path: str | Path, surfaces: Sequence[Surface]) -> None:
    """Write the page with these surfaces and all supported rules."""
    folder = resources.files("caffe.race")
    data = {
        "surfaces": [surface_data(each) for each in surfaces],
        "racers": [racer_data(each) for each in RACERS.values() if live(each)],
    }
    html = (folder / "race.html").read_text(encoding="utf-8")
    html = html.replace("/*CORE*/", (folder / "race.js").read_text(encoding="utf-8"))
    text = json.dumps(data).replace("</", "<\\/")
    with files.atomic(path) as file:
        file.write(html.replace("/*DATA*/", text).encode())
