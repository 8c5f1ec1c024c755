"""`caffe preview`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag
from caffe.cli.plot import OUT
from caffe.errors import CaffeError, NetError

_IMAGES = 1000
COUNT = Flag("count", 64, "Number of images in the picture.")
PREPARE = Flag(
    "prepare",
    "",
    "Also draw into this folder the effect of preprocessing on a thousand images: mean, normalization, PCA and ZCA "
    "whitening, covariance, spectrum and eigenvectors (needs matplotlib).",
)
SEED = Flag("seed", 0, "Seed of the random numbers.")


@command("phase", "level", "stage", OUT, COUNT, PREPARE, SEED, task="data", arguments="MODEL")
def preview(flags: SimpleNamespace, display: Display) -> None:
    """Show the output of a net's data layer in one picture.

    Reads batches as the net would, with crops, mirrors and augmentation. Mean, standard deviation and scale are undone,
    and the images with their labels are written to the file -out (default: preview.png). MODEL is a net, or a file with
    only data layers; the first data layer in -phase (default: TRAIN) is shown.

        caffe preview train_val.prototxt -o grid.png
        caffe preview train_val.prototxt -prepare pictures/
    """
    phase = flags.phase or "TRAIN"
    if phase not in ("TRAIN", "TEST"):
        raise CaffeError(f'-phase "{phase}": expected TRAIN or TEST')
    if flags.count < 1:
        raise CaffeError(f"-count {flags.count}: expected at least 1")
    from caffe import mode
    from caffe.layers.input import Input

    mode.set_random_seed(flags.seed)
    net = _sources(flags, phase)
    out = flags.out or "preview.png"
    try:
        layer = next(layer for layer in net.layers if not isinstance(layer, Input))
        _draw(net, layer, flags.count, out)
        drawn = _prepare(net, layer, flags.prepare) if flags.prepare else []
    finally:
        net.close()
    print(f'wrote {out}: layer "{layer.name}" ({layer.type}), {phase}')
    for line in drawn:
        print(line)


def _sources(flags: SimpleNamespace, phase: str) -> Any:
    """Build a net of the layers without bottoms, which are the data layers."""
    from caffe.layers import Source, layer_class
    from caffe.layers.input import Input
    from caffe.net import Net
    from caffe.net.graph.rules import filter_net
    from caffe.proto import caffe_pb2, upgrade

    (path,) = flags.arguments
    param = upgrade.read_net(path)
    param.state.phase = caffe_pb2.Phase.Value(phase)
    param.state.level = flags.level
    param.state.stage.extend(flags.stage.split(","))
    chosen, _ = filter_net(param)
    kinds = [(layer, layer_class(layer.type)) for layer in chosen.layer if not layer.bottom]
    del param.layer[:]
    param.layer.extend(layer for layer, kind in kinds if issubclass(kind, Source) and not issubclass(kind, Input))
    if not param.layer:
        raise NetError(f"{path}: has no data layer in the phase {phase}")
    return Net(param, param.state.phase, device="cpu")


def _draw(net: Any, layer: Any, count: int, out: str) -> None:
    from caffe.layers.data_annotated import AnnotatedData
    from caffe.pictures.boxes import shown
    from caffe.pictures.grid import grid, write_picture

    undo = _undo(layer)
    pictures: list[Any] = []
    captions: list[str] = []
    while len(pictures) < count:
        net.forward()
        images, *labels = (net.blobs[name].data for name in layer.spec.top)
        if images.ndim != 4:
            shape = " x ".join(map(str, images.shape))
            layer.error(f'top "{layer.spec.top[0]}" has shape {shape}, expected images (N, C, H, W)')
        boxes = _boxes(labels[0], len(images)) if labels and isinstance(layer, AnnotatedData) else None
        if boxes is not None:
            names = _names(layer)
            pictures += [shown(undo(image), rows, names) for image, rows in zip(images, boxes, strict=True)]
            captions += ["1 box" if len(rows) == 1 else f"{len(rows)} boxes" for rows in boxes]
            continue
        pictures += [shown(undo(image), 0) for image in images]
        captions += [_caption(label) for label in labels[0]] if labels else [""] * len(images)
    write_picture(out, grid(pictures[:count], captions[:count]))


def _prepare(net: Any, layer: Any, folder: str) -> list[str]:
    """Draw the effect of preprocessing on a thousand images; returns the text to print."""
    import numpy as np

    from caffe.pictures import whitening

    undo = _undo(layer)
    images: list[Any] = []
    while len(images) < _IMAGES:
        net.forward()
        images += [undo(image) for image in net.blobs[layer.spec.top[0]].data.copy()]  # the next batch overwrites it
    prepared = whitening.prepare(np.stack(images[:_IMAGES]))
    lines = [f"{len(images[:_IMAGES])} images, {len(prepared.values)} numbers each"]
    for name, step in prepared.steps.items():
        numbers = step.mean(), step.std(0).mean(), step.min(), step.max()
        text = "mean {:.3g}, standard deviation of a number {:.3g}, from {:.3g} to {:.3g}".format(*numbers)
        lines.append(f"{name}: {text}")
    return [*lines, *(f"drawn: {path}" for path in whitening.draw(prepared, folder))]


def _undo(layer: Any) -> Any:
    """Return a function that converts a top's image back to pixels, as far as this does not depend on the crop
    position.
    """
    import numpy as np

    from caffe.data.pipeline.transformer import BatchTransformer
    from caffe.layers.data import WindowData

    param = layer.spec.transform_param
    if _plain_arrays(layer) or param.whitening_file:
        return lambda image: image
    made = BatchTransformer(param, layer.phase)
    scale = layer.opt.scale if isinstance(layer, WindowData) else float(made.scale)

    def undone(image: np.ndarray) -> np.ndarray:
        room = (
            [0, 0]
            if made.mean.image is None
            else [(a - b) // 2 for a, b in zip(made.mean.image.shape[1:], image.shape[1:], strict=True)]
        )
        place = (room[0], room[1], False)
        mean, std = made.mean.window(place, image.shape), made.std.window(place, image.shape)
        pixels = image / (scale or 1) * (1 if std is None else std) + (0 if mean is None else mean)
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)

    return undone


def _plain_arrays(layer: Any) -> bool:
    """Whether the layer outputs arrays that need not be pixels."""
    from caffe.layers.data import ArrayData, HDF5Data
    from caffe.layers.data_memory import DummyData

    if isinstance(layer, ArrayData):
        return not layer.spec.HasField("transform_param")
    return isinstance(layer, (HDF5Data, DummyData))


def _boxes(rows: Any, count: int) -> list[Any] | None:
    """Return the boxes (M, 7) of each of `count` images, from a top (1, 1, M, 8); None if labels are numbers."""
    if rows.ndim != 4:
        return None
    return [rows[0, 0][rows[0, 0, :, 0] == index, 1:] for index in range(count)]


def _names(layer: Any) -> dict[int, str]:
    """Read the names of labels from label_map_file, if it exists."""
    import os

    from caffe.proto import caffe_pb2, text

    path = layer.opt.label_map_file
    if not os.path.exists(path):
        return {}
    return {item.label: item.display_name or item.name for item in text.read(path, caffe_pb2.LabelMap()).item}


def _caption(label: Any) -> str:
    """Return a label's text; for mixed labels, the classes with the largest shares."""
    import numpy as np

    values = np.ravel(label)
    if values.size == 1:
        return f"{values[0]:g}"
    best = [index for index in np.argsort(-values)[:2] if values[index] > 0.005]
    return " ".join(f"{index}:{100 * values[index]:.0f}%" for index in best)
