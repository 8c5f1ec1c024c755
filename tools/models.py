"""Writes docs/models.md: the forks of Caffe, their layers, and real models compared with their reference outputs.

    python tools/models.py [FOLDER]     # the folder of reference models, by default $CAFETIERE_SHARED/models

Takes a minute. Milliseconds are processor time, the best of several runs with one thread. A column for the engine
"openvino" is written if OpenVINO is installed. A column for OpenCV's importer is written if
the installed OpenCV is older than 5, which has no importer.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import caffe
from caffe.layers import layer_class, layer_types
from caffe.proto.forks import LAYERS
from caffe.proto.forks.fields import OPTIONS

ROOT = Path(__file__).parent.parent
ROUNDS, LEAST = 5, 0.2  # number of runs and seconds for the best time
OPENVINO = importlib.util.find_spec("openvino") is not None
HEAD = "# Forks and models\n\nThis page is written by `python tools/models.py`."


def main(folder: Path) -> None:
    """Write the page."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    beside = int(cv2.__version__.split(".")[0]) < 5
    page = ROOT / "docs" / "models.md"
    page.write_text("\n".join([HEAD, "", *forks(), "", *models(folder, beside)]) + "\n")
    print(f"written: {page.relative_to(ROOT)}")


def forks() -> list[str]:
    """Return the table of forks: their layer types that are supported, and those that are not."""
    here: dict[str, list[str]] = {}
    for kind in layer_types():
        options = layer_class(kind).options
        if options in OPTIONS:
            here.setdefault(OPTIONS[options], []).append(kind)
    missing: dict[str, list[str]] = {}
    for kind, (origin, _) in LAYERS.items():
        missing.setdefault(origin, []).append(kind)
    lines = ["## Layers by fork", "", "Types without options of their own are in [layers.md](layers.md) only.", ""]
    lines += ["| fork | layers here | not here |", "| --- | --- | --- |"]
    for fork in sorted({*here, *missing}, key=str.lower):
        lines.append(f"| {fork} | {', '.join(here.get(fork, []))} | {', '.join(missing.get(fork, []))} |")
    return lines


def models(folder: Path, beside: bool) -> list[str]:
    """Return the table of models: the largest difference to the reference outputs, and the time of a run."""
    times = ["ms", *["OpenVINO ms"] * OPENVINO, *["OpenCV ms"] * beside]
    lines = ["## Models", "", _words(beside), "", f"| model | outputs | difference | {' | '.join(times)} |"]
    lines.append(f"| --- | --- | --- |{' ---: |' * len(times)}")
    for name, info in json.loads((folder / "index.json").read_text()).items():
        if "npz" in name:
            lines.append(_row(folder, name, info, beside))
    return lines


def _words(beside: bool) -> str:
    first = (
        "Trained models of public repositories. The difference is the largest of any output to the stored reference, "
        "relative to the largest value of that output; rows of detections are compared as sets. Milliseconds are those "
        "of `net.optimize()` and one thread, with the first stored input; they are the processor's time, on "
        f"one machine ({os.cpu_count()} processors) which other programs used too"
    )
    if OPENVINO:
        first += '; beside them those of `net.optimize(engine="openvino")`, which the difference includes'
    if not beside:
        return (
            f"{first}. The installed OpenCV {cv2.__version__} has no importer for Caffe, so there is no column for it."
        )
    return f"{first}; and those of OpenCV {cv2.__version__}'s importer, where it runs the net."


def _row(folder: Path, name: str, info: dict[str, Any], beside: bool) -> str:
    place, stored = (folder / name).parent, np.load(folder / name)
    definition, weights = place / info["prototxt"], place / info["caffemodel"]
    worst, outputs, times = 0.0, 0, []
    for engine in ["torch", *["openvino"] * OPENVINO]:
        net = caffe.Net(definition, caffe.TEST, weights=weights)
        net.optimize(engine=engine)
        # the first case runs last, because it is the one that is timed
        found = [value for case in reversed(info["cases"]) for value in _compared(net, case, stored)]
        outputs, worst = len(found), max(worst, *found)
        times.append(f"{_best(net.forward):.2f}")
    if beside:
        times.append(_opencv(definition, weights, _inputs(info["cases"][0], stored)))
    return f"| {Path(name).parent}/{weights.name} | {outputs} | {worst:.1e} | {' | '.join(times)} |"


def _inputs(case: str, stored: Any) -> dict[str, np.ndarray]:
    return {key.split("|")[2]: stored[key] for key in stored if key.startswith(f"{case}|in|")}


def _compared(net: Any, case: str, stored: Any) -> list[float]:
    """Run a case, and return the difference of each output to its reference."""
    for blob, values in _inputs(case, stored).items():
        net.blobs[blob].reshape(*values.shape)
        net.blobs[blob].data[...] = values
    net.forward()
    differences = []
    for key in stored:
        if key.startswith(f"{case}|out|"):
            wanted = stored.get(key.replace("|out|", "|out_int|"), stored[key])
            differences.append(_difference(net.blobs[key.split("|")[2]].data, wanted))
    return differences


def _difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest difference, relative to the largest value; each row of detections is compared with the nearest
    one.
    """
    scale = max(float(np.abs(wanted).max(initial=0)), 1e-30)
    if found.shape[-1:] == (7,) and found.shape == wanted.shape:
        rows, others = found.reshape(-1, 7), wanted.reshape(-1, 7)
        return float(np.abs(rows[:, None] - others[None]).max(2).min(1).max(initial=0)) / scale
    if found.shape != wanted.shape:
        return float("inf")
    return float(np.abs(found - wanted).max(initial=0)) / scale


def _opencv(definition: Path, weights: Path, inputs: dict[str, np.ndarray]) -> str:
    try:
        net = cv2.dnn.readNetFromCaffe(str(definition), str(weights))
        for blob, values in inputs.items():
            net.setInput(np.ascontiguousarray(values, np.float32), blob)
        outputs = net.getUnconnectedOutLayersNames()
        return f"{_best(lambda: net.forward(outputs)):.2f}"
    except cv2.error:
        return "-"


def _best(run: Callable[[], object]) -> float:
    """Return the milliseconds of the fastest of several runs, after a warm-up."""
    run()
    times: list[float] = []
    while len(times) < ROUNDS or sum(times) < LEAST:
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return 1000 * min(times)


if __name__ == "__main__":
    default = Path(os.environ.get("CAFETIERE_SHARED", ROOT.parent / "shared")) / "models"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=default, help="the folder of reference models")
    chosen = parser.parse_args().folder
    if not chosen.is_dir():
        parser.error(f"{chosen} is not a folder; give the folder of reference models, or set CAFETIERE_SHARED")
    main(chosen)
