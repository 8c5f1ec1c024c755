"""Inference of trained detectors, one image at a time, compared with the Caffe importer of OpenCV 4.

    python -m benchmarks.detection [FOLDER] [--threads 1] [--seconds 4] [--dry]

FOLDER has the reference models, by default $CAFETIERE_SHARED/models. Needs OpenCV 4 and, for the second engine,
OpenVINO. The engines take turns; medians of the processor's time are reported, which depend less
on other programs than the time of the clock. With more than one thread it is the time of the clock. The table is
printed and, without --dry, written to benchmarks/results/detection.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

import caffe
from benchmarks.report import keep
from benchmarks.update import measure
from caffe import log

RESULTS = Path(__file__).parent / "results"
MODELS = (
    "ultraface/reference_slim-320.npz",
    "ultraface/reference_RFB-320.npz",
    "yufacedetect_v2/reference.npz",
    "hyperlpr_ssd/reference.npz",
    "ov_face_detection_0044/reference.npz",
    "ov_person_detection_0022/reference.npz",
)


def steps(folder: Path, name: str) -> dict[str, Callable[[], None]]:
    """Return a run of each engine with the first stored image of a model."""
    info = json.loads((folder / "index.json").read_text())[name]
    place, stored = (folder / name).parent, np.load(folder / name)
    definition, weights = place / info["prototxt"], place / info["caffemodel"]
    start = f"{info['cases'][0]}|in|"
    inputs = {key.removeprefix(start): stored[key] for key in stored if key.startswith(start)}

    def ours(engine: str) -> Callable[[], None]:
        net = caffe.Net(definition, caffe.TEST, weights=weights)
        net.optimize(engine=engine)
        for blob, values in inputs.items():
            net.blobs[blob].reshape(*values.shape)

        def step() -> None:
            for blob, values in inputs.items():
                net.blobs[blob].data[...] = values
            net.forward()

        return step

    importer = cv2.dnn.readNetFromCaffe(str(definition), str(weights))
    outputs = importer.getUnconnectedOutLayersNames()

    def theirs() -> None:
        for blob, values in inputs.items():
            importer.setInput(values, blob)
        importer.forward(outputs)

    return {"torch": ours("torch"), "openvino": ours("openvino"), "opencv": theirs}


def rounds(runs: dict[str, Callable[[], None]], seconds: float) -> int:
    """Run each twice, and return how many rounds fit into the time."""
    for run in runs.values():
        run()
    start = time.perf_counter()
    for run in runs.values():
        run()
    return max(7, int(seconds / (time.perf_counter() - start)))


def main() -> None:
    """Measure and print the table."""
    default = Path(os.environ.get("CAFETIERE_SHARED", "shared")) / "models"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=default)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--dry", action="store_true")
    given = parser.parse_args()
    if int(cv2.__version__.split(".")[0]) >= 5:
        sys.exit(f"OpenCV {cv2.__version__} has no importer for Caffe: pip install 'opencv-python-headless<5'")
    if not (given.folder / "index.json").exists():
        sys.exit(f"{given.folder} has no index.json: name the folder of the reference models, or set CAFETIERE_SHARED")
    log.start(logging.ERROR)
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(given.threads)
    clock = time.process_time if given.threads == 1 else time.perf_counter
    kind = "processor time" if given.threads == 1 else "time"
    lines = [
        f"One image, {given.threads} thread(s), median {kind} in ms; OpenCV {cv2.__version__}\n",
        "| model | ours | OpenCV / ours | ours, OpenVINO | OpenCV / ours | OpenCV |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    figures: dict[str, float] = {}
    for name in MODELS:
        runs = steps(given.folder, name)
        turns = rounds(runs, given.seconds)
        found = measure({key: (run, 0) for key, run in runs.items()}, turns, clock)
        ms = {key: 1e3 * value for key, value in found.items()}
        ours = " | ".join(f"{ms[key]:.1f} | {ms['opencv'] / ms[key]:.2f}" for key in ("torch", "openvino"))
        title = name.replace("/reference", "").removesuffix(".npz")
        figures |= {f"{title}, {key}": ms["opencv"] / ms[key] for key in ("torch", "openvino")}
        lines.append(f"| {title} | {ours} | {ms['opencv']:.1f} |")
        print(lines[-1], flush=True)
    print("\n".join(lines))
    if not given.dry:
        (RESULTS / "detection.md").write_text("\n".join(lines) + "\n")
        keep("detection", figures)


if __name__ == "__main__":
    main()
