"""`caffe classify`."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import ENGINE, Flag
from caffe.errors import CaffeError, DataError, FileError
from caffe.proto.files import refuse_special

MODEL_DEF = Flag("model_def", "", "Net to run (deploy prototxt).")
PRETRAINED_MODEL = Flag("pretrained_model", "", "Its weights (.caffemodel or .h5).")
MEAN_FILE = Flag("mean_file", "", "Mean to subtract (.npy or .binaryproto).")
INPUT_SCALE = Flag("input_scale", "", "Factor for the net's input, applied last.")
RAW_SCALE = Flag("raw_scale", "255.0", "Factor for the pixels (0 .. 1), applied before the mean is subtracted.")
CHANNEL_SWAP = Flag(
    "channel_swap", "auto", "Order of the channels; auto is 2,1,0 (RGB to BGR) for a net with three input channels."
)
CENTER_ONLY = Flag("center_only", False, "Use only the centre crop, not the mean over ten crops.")
IMAGES_DIM = Flag("images_dim", "256,256", "Height and width that images are resized to before cropping.")
EXT = Flag("ext", "jpg", "Suffix of the images in a folder.")
LABELS = Flag("labels", "", "File with one class name per line, for the list of the best classes.")

TRANSFORM = (MODEL_DEF, PRETRAINED_MODEL, "gpu", MEAN_FILE, INPUT_SCALE, RAW_SCALE, CHANNEL_SWAP)
_BY_FLAGS = (
    MODEL_DEF,
    PRETRAINED_MODEL,
    MEAN_FILE,
    INPUT_SCALE,
    RAW_SCALE,
    CHANNEL_SWAP,
    CENTER_ONLY,
    IMAGES_DIM,
    LABELS,
)
_BEST, _ROWS = 5, 20  # classes of an image and rows of a table that are printed


@command("model", *TRANSFORM, CENTER_ONLY, IMAGES_DIM, EXT, LABELS, ENGINE, task="train", arguments="IMAGES [OUT]")
def classify(flags: SimpleNamespace, display: Display) -> None:
    """Classify images.

    -model names a model of the zoo (see `caffe zoo list`), a project, or a model folder whose readme.md describes how
    images are prepared. In the folder of a project, -model may be omitted. Otherwise flags give the net, the weights
    and the preparation.

    IMAGES is an image, a folder of images, or a .npy file of images (N, H, W, 3) in 0 .. 1. A net with one channel also
    accepts grey images (N, H, W). Prints the best classes of each image, and writes the scores (N, classes) to OUT, a
    .npy file. In a project made from a table, IMAGES is a table (.csv), and OUT may be a table: the rows with their
    predictions.

        caffe classify digit.png -model lenet
        caffe classify rose.jpg -model flowers
        caffe classify cat.jpg scores.npy -model_def deploy.prototxt -pretrained_model net.caffemodel
    """
    source, out = [*flags.arguments, ""][:2]
    if _of_table(flags, source, out):
        return
    if out and not out.endswith(".npy"):
        raise CaffeError(f"{out}: the scores are written as an array; the file name must end in .npy")
    names, scores, classes = _by_folder(flags, source) or _by_flags(flags, source)
    _print(names, scores, classes)
    if out:
        _save(out, scores)
        print(f"wrote {out}")


def _of_table(flags: SimpleNamespace, source: str, out: str) -> bool:
    """Predict the rows of a table with a project made from a table; return False if the model classifies pictures."""
    from caffe.cli import _project

    folder = _project.model_folder(flags.model)
    if folder is None or "columns" not in folder.facts or _given(flags):
        return False
    if out and not out.endswith((".csv", ".npy")):
        raise CaffeError(f"{out}: the output file must end in .csv (the table with predictions) or .npy (numbers only)")
    from caffe.project.tabular import Table, TablePredictor

    predictor = TablePredictor(folder, flags.engine)
    table = Table.read(source)
    values = predictor.predict(table)
    for note in predictor.columns.unseen(table):
        print(f"note: {note}")
    for row, answer in enumerate(predictor.answers(values)[:_ROWS]):
        share = f"  {values[row].max():.4f}" if predictor.columns.classes else ""
        print(f"{table.place(row)}: {answer}{share}")
    if len(table.rows) > _ROWS:
        print(
            f"... and {len(table.rows) - _ROWS} more rows"
            + ("" if out else "; give a second file to write all of them: OUT.csv")
        )
    if out.endswith(".csv"):
        predictor.write(out, table, values)
    elif out:
        _save(out, values)
    if out:
        print(f"wrote {out}")
    return True


def _given(flags: SimpleNamespace) -> list[str]:
    """Return the given flags that describe a net without a model folder."""
    return [f"-{flag.name}" for flag in _BY_FLAGS if getattr(flags, flag.name) != flag.default]


def _save(path: str, scores: Any) -> None:
    import numpy as np

    from caffe.proto import files

    with files.atomic(path) as file:
        np.save(file, scores)


def _by_folder(flags: SimpleNamespace, source: str) -> tuple[list[str], Any, list[str]] | None:
    """Classify with the model folder of -model. Returns names of images, scores and classes; None without -model."""
    from caffe.cli import _project

    given = _given(flags)
    if flags.model and given:
        raise CaffeError(f"-model defines how images are prepared: remove {', '.join(given)}, or give -model_def")
    folder = None if given else _project.model_folder(flags.model)
    if folder is None:
        return None
    from caffe.cli import _device
    from caffe.data.streams.images import read_image
    from caffe.zoo import Predictor

    _device.use(flags.gpu, "caffe", f'"-gpu {flags.gpu}"')
    predictor = Predictor(folder, flags.engine)
    found = _image_files(source, flags.ext)
    pictures = []
    for path in found:
        try:
            pictures.append(read_image(path))
        except DataError as error:
            raise FileError(f'the image "{path}" {error}') from error
    return found, predictor.predict(pictures), predictor.labels


def _by_flags(flags: SimpleNamespace, source: str) -> tuple[list[str], Any, list[str]]:
    """Classify with the net that the flags name. Returns names of images, scores and classes."""
    import numpy as np

    from caffe.classifier import Classifier
    from caffe.cli import _images

    chosen = _images.settings(flags)
    dims = _images.numbers(flags, "images_dim")
    if dims is not None and (len(dims) != 2 or min(dims) < 1):
        raise CaffeError(f'-images_dim "{flags.images_dim}": expected a height and a width in pixels, such as 256,256')
    classifier = Classifier(flags.model_def, flags.pretrained_model, image_dims=dims, **chosen)
    _images.swap_colors(classifier, flags)
    names = class_names(flags.labels, int(np.prod(classifier.blobs[classifier.outputs[0]].shape[1:])))
    images = _read(source, flags.ext, classifier.blobs[classifier.inputs[0]].shape[1] != 1)
    classifier.optimize(engine=flags.engine)
    scores = classifier.predict([image for _, image in images], not flags.center_only)
    return [name for name, _ in images], scores, names


def _print(names: list[str], scores: Any, classes: list[str]) -> None:
    """Print the best classes of each image."""
    for name, row in zip(names, scores.reshape(len(names), -1), strict=True):
        print(name)
        for index in row.argsort()[::-1][:_BEST]:
            print(f"  {row[index]:.4f}  {classes[index]}")


def class_names(path: str, classes: int) -> list[str]:
    """Return the class names: the lines of a file, or the class indices if there is no file."""
    if not path:
        return [str(index) for index in range(classes)]
    try:
        refuse_special(path)
        names = Path(path).read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    except OSError as error:
        raise FileError(f"cannot read the labels {path}: {error.strerror}") from error
    if len(names) != classes:
        raise FileError(
            f"{path}: contains {len(names)} names, but the net has {classes} classes; expected one line for each"
        )
    return names


def _read(path: str, ext: str, color: bool) -> list[tuple[str, Any]]:
    """Read names and images."""
    from caffe import io
    from caffe.cli import _images

    if path.endswith(".npy"):
        return [(f"{path}[{index}]", image) for index, image in enumerate(_images.read_array(path))]
    return [(name, io.load_image(name, color)) for name in _image_files(path, ext)]


def _image_files(path: str, ext: str) -> list[str]:
    """Return the path of an image, or the paths of the images in a folder."""
    if not os.path.isdir(path):
        return [path]
    found = sorted(map(str, Path(path).glob(f"*.{ext}")))
    if not found:
        raise FileError(f"the folder {path} has no images *.{ext}; set their suffix by -ext")
    return found
