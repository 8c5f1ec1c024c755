"""The data that the page requests: rows of the table, run details, curves as bytes, histograms, pictures, tables."""

from __future__ import annotations

import csv
import io
import json
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from caffe.errors import CaffeError, FileError
from caffe.monitor.curve import window
from caffe.monitor.event_source import read_value
from caffe.monitor.run import Run
from caffe.proto import files

__all__ = ["confusion", "curves", "detail", "histograms", "image", "net_picture", "row", "table"]

_COLUMNS = (2, 4000)
_BINS = 60


def row(run: Run) -> dict[str, Any]:
    """Return a run's row in the table."""
    held, facts = run.curves, run.facts
    main = held.get("loss") or next((arrays for tag, arrays in held.items() if tag != "speed"), None)
    iteration = max((int(arrays.x[-1]) for arrays in held.values() if len(arrays.x)), default=None)
    settings = facts.settings
    most = settings.get("max_iter", "")
    rate = _latest_speed(held.get("speed"))
    left = (int(most) - iteration) / rate if most.isdigit() and iteration is not None and rate else None
    return {
        "id": run.number,
        "name": run.name,
        "net": facts.net_name,
        "state": run.state(),
        "iteration": iteration,
        "max_iter": int(most) if most.isdigit() else None,
        "loss": _finite(main.y[-1]) if main is not None and len(main.y) else None,
        "broken": _first_broken(main),
        "tests": {
            tag: _finite(arrays.y[-1]) for tag, arrays in held.items() if tag.startswith("test") and len(arrays.y)
        },
        "speed": rate,
        "left": left if left and left > 0 and run.state() == "training" else None,
        "tags": sorted(held),
        "findings": len(facts.findings),
        "messages": run.messages,
        "settings": settings,
    }


def detail(run: Run) -> dict[str, Any]:
    """Return the details of a run."""
    facts = run.facts
    report = run.report or {}
    return {
        **row(run),
        "path": str(run.path),
        "found": facts.findings,
        "lines": facts.lines,
        "solver": facts.solver,
        "has_net": bool(facts.net or facts.graph),
        "shapes": facts.shapes,
        "images": {tag: [place[0] for place in places] for tag, places in facts.images.items()},
        "histograms": {tag: len(places) for tag, places in facts.histograms.items()},
        "confusions": [path.name for path in run.confusions],
        "doctor": {"file": report.get("file"), "findings": report["findings"]} if report else None,
    }


def curves(runs: Sequence[Run], tag: str, axis: str, low: float | None, high: float | None, columns: int) -> bytes:
    """Return the curves of a tag in a window, as bytes: the length of a header, the header in JSON, and float32 arrays.

    The header has "x0" and "width" (start of the first column, and width of each), "extent" (the range of all curves),
    and "runs". For each run follow minimum, maximum and mean of each column. On the iteration axis a column contains
    whole iterations, so a column of width one is exactly one iteration.
    """
    columns = min(max(columns, _COLUMNS[0]), _COLUMNS[1])
    held = [(run.number, arrays) for run in runs if (arrays := run.curves.get(tag)) is not None and len(arrays.x)]
    ends = [(at[0], at[-1]) for _, arrays in held for at in (arrays.x if axis == "iterations" else arrays.seconds,)]
    extent = (float(min(a for a, _ in ends)), float(max(b for _, b in ends))) if ends else (0.0, 1.0)
    low, high = extent[0] if low is None else low, extent[1] if high is None else high
    low, high = min(low, high), max(low, high, low + 1e-6)
    width = (high - low) / (columns - 1)
    if axis == "iterations":
        width = max(1.0, math.ceil((high - low) / (columns - 1)))
        low = math.floor(low / width) * width
    count = math.floor((high - low) / width) + 1
    header = {"x0": low, "width": width, "columns": count, "extent": extent, "runs": [number for number, _ in held]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 4)
    body = [array.tobytes() for _, arrays in held for array in window(arrays, axis, low, width, count)]
    return struct.pack("<I", len(text)) + text + b"".join(body)


def histograms(run: Run, tag: str) -> dict[str, Any]:
    """Return a tag's histograms over time: iterations, the limits of the bins, and a row of counts for each iteration.

    The writer chooses bins for each histogram; they are converted to common bins.
    """
    places = run.facts.histograms.get(tag, [])
    found = [(place[0], read_value(run.folder, place, tag).histo) for place in places]
    found = [(step, histo) for step, histo in found if len(histo.bucket)]
    if not found:
        return {"steps": [], "edges": [], "counts": []}
    low, high = min(histo.min for _, histo in found), max(histo.max for _, histo in found)
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    rows = []
    for _, histo in found:
        limits = np.concatenate([[histo.min], np.minimum(histo.bucket_limit, histo.max)])
        total = np.concatenate([[0], np.cumsum(histo.bucket)])
        at, first = np.unique(np.maximum.accumulate(limits), return_index=True)
        last = np.append(first[1:] - 1, len(total) - 1)
        rows.append(np.diff(np.interp(edges, at, total[last])).tolist())
    return {"steps": [step for step, _ in found], "edges": edges.tolist(), "counts": rows}


def image(run: Run, tag: str, number: int) -> bytes:
    """Return the bytes of a PNG file. Raises CaffeError for a picture that does not exist."""
    places = run.facts.images.get(tag, [])
    if not 0 <= number < len(places):
        raise CaffeError(
            f'run "{run.name}" has {len(places)} pictures "{tag}"; expected a number below that, not {number}'
        )
    return bytes(read_value(run.folder, places[number], tag).image.encoded_image_string)


def confusion(run: Run, number: int) -> Any:
    """Return a confusion matrix beside the run: class names and rows of counts, or the bytes of a picture."""
    paths = run.confusions
    if not 0 <= number < len(paths):
        raise CaffeError(f'run "{run.name}" has {len(paths)} confusion matrices; expected a number below that')
    content = files.read_bytes(paths[number])
    if paths[number].suffix != ".csv":
        return content
    try:
        head, *rows = list(csv.reader(io.StringIO(content.decode())))
        return {"names": head[1:], "rows": [[int(cell) for cell in row[1:]] for row in rows]}
    except ValueError as error:
        raise FileError(
            f"{paths[number]}: is not a table of counts as written by caffe test -confusion: {error}"
        ) from error


def net_picture(run: Run) -> bytes:
    """Return the run's net with its shapes, as SVG. Raises CaffeError if the run's files contain no net."""
    from caffe import draw
    from caffe.monitor.net_of_run import net_of

    net, shapes = net_of(run)
    return draw.draw_net(net, "TB", "svg", draw.phase_of(net), shapes=shapes)


def table(runs: Sequence[Run], tag: str) -> str:
    """Return a tag's values of several runs as CSV: run, iteration, seconds, value; every point of each curve."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["run", "iteration", "seconds", tag])
    for run in runs:
        arrays = run.curves.get(tag)
        if arrays is not None:
            for x, y, seconds in zip(*(array.tolist() for array in arrays), strict=True):
                writer.writerow([run.name, x, round(seconds, 3), f"{y:.7g}"])
    return stream.getvalue()


def _latest_speed(arrays: Any) -> float | None:
    return _finite(float(np.median(arrays.y[-5:]))) if arrays is not None and len(arrays.y) else None


def _first_broken(arrays: Any) -> int | None:
    """Return the first iteration whose value is not finite."""
    if arrays is None:
        return None
    bad = np.flatnonzero(~np.isfinite(arrays.y))
    return int(arrays.x[bad[0]]) if len(bad) else None


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
