"""`caffe detect`."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from caffe.cli.classify import TRANSFORM
from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import ENGINE, Flag
from caffe.errors import CaffeError, FileError

CROP_MODE = Flag("crop_mode", "selective_search", "Source of the windows: selective_search, or list (a .csv file).")
CONTEXT_PAD = Flag("context_pad", 16, "Pixels of context around the window in the net's input.")

_SIDES = ("ymin", "xmin", "ymax", "xmax")


@command(*TRANSFORM, CROP_MODE, CONTEXT_PAD, ENGINE, task="train", arguments="IMAGES OUT")
def detect(flags: SimpleNamespace, display: Display) -> None:
    """Score windows of images, as R-CNN does.

    IMAGES is a .txt file with one image path per line or, with -crop_mode list, a .csv file with the columns filename,
    ymin, xmin, ymax, xmax. OUT is a .csv file with these columns and class0, class1, ..., or an .h5 file with the
    arrays filename, window and prediction.

        caffe detect windows.csv scores.csv -crop_mode list -model_def deploy.prototxt -pretrained_model net.caffemodel
    """
    from caffe.cli import _images
    from caffe.detector import Detector

    source, target = flags.arguments
    if flags.crop_mode not in ("list", "selective_search"):
        raise CaffeError(f'-crop_mode "{flags.crop_mode}": expected "list" or "selective_search"')
    if Path(target).suffix not in (".csv", ".h5"):
        raise CaffeError(f"{target}: the output file must end in .csv or .h5")
    chosen = _images.settings(flags)
    if chosen["mean"] is not None and chosen["mean"].ndim == 3:
        chosen["mean"] = chosen["mean"].mean((1, 2))
    wanted = _windows(source) if flags.crop_mode == "list" else _lines(source)
    detector = Detector(flags.model_def, flags.pretrained_model, context_pad=flags.context_pad, **chosen)
    _images.swap_colors(detector, flags)
    detector.configure_crop(flags.context_pad)  # the fill value outside the image depends on the channel order
    detector.optimize(engine=flags.engine)
    run: Any = detector.detect_windows if flags.crop_mode == "list" else detector.detect_selective_search
    found = run(wanted)
    _write(found, target)
    print(f"wrote {target}: {len(found)} windows")


def _lines(path: str) -> list[str]:
    try:
        return [line.strip() for line in Path(path).read_text().splitlines() if line.strip()]
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error


def _windows(path: str) -> list[tuple[str, list[list[float]]]]:
    """Return the windows of each image, in the order of the file."""
    rows = list(csv.DictReader(_lines(path)))
    if not rows or not {"filename", *_SIDES} <= set(rows[0]):
        raise FileError(f"{path}: expected a table with the columns filename, {', '.join(_SIDES)}")
    windows: dict[str, list[list[float]]] = {}
    for number, row in enumerate(rows, 2):
        try:
            windows.setdefault(row["filename"], []).append([float(row[side]) for side in _SIDES])
        except (TypeError, ValueError):
            raise FileError(f"{path}:{number}: {', '.join(_SIDES)} must be numbers") from None
    return list(windows.items())


def _write(found: list[dict], path: str) -> None:
    import numpy as np

    from caffe.proto import files

    names = [str(entry["filename"]) for entry in found]
    windows = np.array([entry["window"] for entry in found], np.float64).reshape(-1, 4)
    scores = np.array([np.ravel(entry["prediction"]) for entry in found])
    with files.atomic(path) as file:
        if path.endswith(".h5"):
            import h5py

            with h5py.File(file, "w") as h5:
                h5["filename"], h5["window"], h5["prediction"] = names, windows, scores
            return
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        classes = [f"class{index}" for index in range(scores.shape[1] if found else 0)]
        writer.writerow(["filename", *_SIDES, *classes])
        for name, window, row in zip(names, windows.tolist(), scores.tolist(), strict=True):
            writer.writerow([name, *(f"{side:g}" for side in window), *row])
        file.write(stream.getvalue().encode())
