"""`caffe try`."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from caffe.cli.classify import CHANNEL_SWAP, INPUT_SCALE, LABELS, MEAN_FILE, MODEL_DEF, PRETRAINED_MODEL, RAW_SCALE
from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import UsageError
from caffe.cli.monitor import HOST, OPEN, PORT
from caffe.errors import CaffeError, require_extra

_BY_FLAGS = (MODEL_DEF, PRETRAINED_MODEL, LABELS, MEAN_FILE, INPUT_SCALE, RAW_SCALE, CHANNEL_SWAP)


@command(*_BY_FLAGS, HOST, OPEN, PORT, task="train", arguments="[PROJECT]")
def try_(flags: SimpleNamespace, display: Display) -> None:
    """Try an image classifier in the browser.

    Opens a page that classifies pictures and explains the result: drop a picture, paste it, or use the camera. The page
    shows the probability of each class and, for each class, the regions of the picture that support it (Grad-CAM).
    PROJECT is the folder of a project, a model folder, or a model of the zoo; in the folder of a project it may be
    omitted. Otherwise -model_def, -pretrained_model and -labels give the net, as for `caffe classify`. The command
    lists the files that are needed to use the net elsewhere.

    The page is visible only on this machine, unless -host says otherwise. It loads nothing from other sites, and
    pictures are not stored. Ctrl-C ends the command.

        caffe try flowers
        caffe try lenet -open
        caffe try -model_def deploy.prototxt -pretrained_model net.caffemodel -mean_file mean.npy -labels names.txt
    """
    if not 0 <= flags.port < 65536:
        raise UsageError(f"caffe: error: -port {flags.port}: expected 0 (any free one) to 65535")
    for module in ("starlette", "uvicorn"):
        require_extra(module, "monitor", "caffe try")
    from caffe.tryout.server import serve
    from caffe.web import address, listening

    explainer = _explainer(flags)
    listener = listening(flags.host, flags.port)
    url = address(flags.host, listener)
    print(f"{explainer.name}, {explainer.classes} classes. To use it elsewhere, take:")
    for path in explainer.files:
        print(f"  {os.path.relpath(path)}")
    print(f"The page is at {url} (Ctrl-C ends it)", flush=True)
    if flags.open:
        import webbrowser

        webbrowser.open(url)
    try:
        serve(explainer, flags.host, listener)
    except KeyboardInterrupt:
        print("The page has ended.")


def _explainer(flags: SimpleNamespace) -> Any:
    """The classifier that PROJECT or the flags name."""
    from caffe.cli import _project
    from caffe.tryout import Explainer

    given = [f"-{flag.name}" for flag in _BY_FLAGS if getattr(flags, flag.name) != flag.default]
    name = next(iter(flags.arguments), "")
    if name and given:
        raise CaffeError(f'"{name}" defines how pictures are prepared: remove {", ".join(given)}, or the folder')
    folder = None if given else _project.model_folder(name)
    if folder is not None:
        return Explainer.of_folder(folder)
    if not (flags.model_def and flags.pretrained_model):
        raise CaffeError(
            "Need a classifier: name a project or a model of the zoo (caffe try lenet), or give a net by -model_def "
            "FILE and -pretrained_model FILE"
        )
    return _by_flags(flags)


def _by_flags(flags: SimpleNamespace) -> Any:
    """The classifier of -model_def, which prepares pictures as `caffe classify -center_only` does."""
    from pathlib import Path

    import numpy as np

    from caffe.cli import _images
    from caffe.cli.classify import class_names
    from caffe.tryout import Explainer
    from caffe.zoo.preparation import recolored

    def prepare(pixels: np.ndarray) -> np.ndarray:
        probe = made.probe
        image = recolored(pixels, "gray" if probe.shape[0] == 1 else "rgb").astype(np.float32) / 255
        found: np.ndarray = mover.preprocess(probe.input, image.reshape(*image.shape[:2], -1))
        return found

    files = [Path(path) for path in (flags.model_def, flags.pretrained_model, flags.mean_file, flags.labels) if path]
    made = Explainer(flags.model_def, flags.pretrained_model, prepare, files=files)
    if flags.labels:
        made.labels = class_names(flags.labels, made.classes)
    mover = _images.transformer(made.probe, flags)
    return made
