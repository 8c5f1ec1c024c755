"""`caffe look`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from caffe.cli.classify import CHANNEL_SWAP, EXT, INPUT_SCALE, LABELS, MEAN_FILE, RAW_SCALE, class_names
from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag
from caffe.errors import CaffeError, FileError, did_you_mean, require_extra

OUT = Flag("out", "look", "Output folder; it is created if needed.", ("o",))
CLASS = Flag("class", -1, "Class to explain; the default is the predicted class of each image.")
BLOB = Flag(
    "blob", "", "Blob whose values are compared between images; the default is the bottom of the layer with the scores."
)
MAPS = Flag("maps", "", "Convolutional blob for Grad-CAM; the default is the last one with spatial axes.")
ONLY = Flag(
    "only", "", "Pictures to draw, separated by ',': activations, saliency, occlusion, gradcam, class, neighbours, map."
)

_KINDS = ("activations", "saliency", "occlusion", "gradcam", "class", "neighbours", "map")
_FLAGS = (BLOB, CHANNEL_SWAP, CLASS, EXT, INPUT_SCALE, LABELS, MAPS, MEAN_FILE, ONLY, OUT, RAW_SCALE)
_SHOWN = 16  # largest number of images with maps

Made = tuple[str, Callable[[Any], None]]


@command(*_FLAGS, task="nets", arguments="NET WEIGHTS IMAGE...")
def look(flags: SimpleNamespace, display: Display) -> None:
    """Draw what a net computes for images.

    NET is a deploy prototxt; an IMAGE is a file or a folder. For each image the command draws the activations of each
    convolutional blob, which pixels change the score (saliency), where a grey square lowers it (occlusion), and where
    the class is detected (Grad-CAM). For each predicted class it draws an image with a high score for it. With three
    images or more, it also draws each image's nearest neighbours in a blob, and a map of all images: PCA and, from ten
    images on, t-SNE.

        caffe look deploy.prototxt net.caffemodel cat.jpg -mean_file mean.npy -labels names.txt
        caffe look lenet.prototxt lenet.caffemodel digits/ -ext png -raw_scale 1 -only neighbours,map
    """
    require_extra("matplotlib", "plot", "caffe look")
    kinds = [word for word in flags.only.split(",") if word] or list(_KINDS)
    for word in kinds:
        if word not in _KINDS:
            raise CaffeError(f'-only "{word}"{did_you_mean(word, _KINDS)}; expected some of {", ".join(_KINDS)}')
    from caffe import inside

    probe = inside.Probe(flags.arguments[0], flags.arguments[1])
    names = class_names(flags.labels, probe.classes)
    target = getattr(flags, "class")
    if target >= 0:
        probe.known(target)
    paths = list(_files(flags.arguments[2:], flags.ext))
    images = _read(probe, paths, flags)
    folder = Path(flags.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder}: cannot make the folder: {error.strerror}") from error
    best = probe.scores(images).argmax(1) if target < 0 else [target] * len(images)
    for path, found in zip(paths, best, strict=True):
        print(f"{path}: class {names[found]}")
    made = list(_of_images(probe, images, paths, best, names, flags, kinds))
    made += _of_classes(probe, sorted(set(map(int, best))), names, kinds)
    made += _of_all(probe, images, [names[found] for found in best], flags, kinds)
    for name, draw in made:
        print(f"wrote {_write(folder / f'{name}.png', draw)}")


def _of_images(
    probe: Any, images: Any, paths: list[str], best: Any, names: list[str], flags: SimpleNamespace, kinds: list[str]
) -> Iterator[Made]:
    from caffe import inside

    finders: dict[str, Callable[[Any, Any, int], Any]] = {
        "saliency": inside.saliency,
        "occlusion": inside.occlusion,
        "gradcam": partial(inside.grad_cam, blob=flags.maps),
    }
    for number, (path, image, found) in enumerate(zip(paths[:_SHOWN], images, best, strict=False)):
        stem = Path(path).stem if len({Path(each).stem for each in paths}) == len(paths) else f"{number}"
        for kind in kinds:
            if kind in finders:
                heat = finders[kind](probe, image, int(found))
                yield f"{stem}_{kind}", _into_axes(inside.draw_heat, image, heat, f"{kind}: {names[found]}")
            elif kind == "activations":
                yield f"{stem}_activations", partial(_activations, probe=probe, image=image)


def _into_axes(draw: Callable[..., None], *given: Any) -> Callable[[Any], None]:
    """Return a function that draws into the only axes of a page."""
    return lambda page: draw(page.subplots(), *given)


def _activations(page: Any, probe: Any, image: Any) -> None:
    """Draw the maps of each blob with spatial axes, at most nine blobs."""
    from caffe import inside

    blobs = [name for name in probe.blobs if len(probe.size(name)) == 4 and min(probe.size(name)[2:]) > 1]
    blobs = blobs[:: -(-len(blobs) // 9)] if blobs else []
    page.set_size_inches(4 * min(3, max(1, len(blobs))), 4 * max(1, -(-len(blobs) // 3)))
    grid = page.subplots(max(1, -(-len(blobs) // 3)), min(3, max(1, len(blobs))), squeeze=False).ravel()
    for axes, name in zip(grid, blobs, strict=False):
        values = probe.values(image, name)[0]
        inside.draw_tiles(axes, values[:64], f"{name}: {' x '.join(map(str, values.shape))}")
    for axes in grid[len(blobs) :]:
        axes.set_axis_off()


def _of_classes(probe: Any, classes: list[int], names: list[str], kinds: list[str]) -> Iterator[Made]:
    from caffe import inside

    for found in classes[:_SHOWN] if "class" in kinds else []:
        picture = inside.class_image(probe, found)[None]
        yield f"class_{found}", _into_axes(inside.draw_tiles, picture, f"an image with a high score for {names[found]}")


def _of_all(probe: Any, images: Any, labels: list[str], flags: SimpleNamespace, kinds: list[str]) -> Iterator[Made]:
    from caffe import inside

    if len(images) < 3 or not {"neighbours", "map"} & set(kinds):
        return
    rows = inside.features(probe, images, flags.blob or probe.below())
    if "neighbours" in kinds:
        yield "neighbours", partial(_neighbours, images=images, rows=rows)
    if "map" in kinds:
        shown = images if len(images) <= 300 else None
        yield "map_pca", _into_axes(inside.draw_map, inside.pca(rows), labels, shown, "PCA")
        if 10 <= len(images) <= 5000:
            yield "map_tsne", _into_axes(inside.draw_map, inside.tsne(rows), labels, shown, "t-SNE")


def _neighbours(page: Any, images: Any, rows: Any) -> None:
    """Draw the nearest neighbours of each of the first images."""
    from caffe import inside

    count = min(6, len(rows) - 1)
    order, distances = inside.neighbours(rows, rows[:_SHOWN], count + 1)
    page.set_size_inches(1.2 * (count + 1), 1.5 * len(order))
    for number, axes in enumerate(page.subplots(len(order), 1, squeeze=False).ravel()):
        others = order[number] != number
        chosen = order[number][others][:count]
        inside.draw_neighbours(axes, images[number], images[chosen], distances[number][others][:count])


def _write(path: Path, draw: Callable[[Any], None]) -> Path:
    from matplotlib.figure import Figure

    from caffe.proto import files

    page = Figure(figsize=(6, 6), layout="constrained")
    draw(page)
    with files.atomic(path) as file:
        page.savefig(file, format="png", dpi=110)
    return path


def _files(given: list[str], ext: str) -> Iterator[str]:
    for path in given:
        if not os.path.isdir(path):
            yield path
            continue
        found = sorted(map(str, Path(path).glob(f"*.{ext}")))
        if not found:
            raise FileError(f"the folder {path} has no images *.{ext}; set their suffix by -ext")
        yield from found


def _read(probe: Any, paths: list[str], flags: SimpleNamespace) -> Any:
    """Read the images as the net takes them, (N, C, H, W)."""
    import numpy as np

    from caffe import io
    from caffe.cli import _images

    mover = _images.transformer(probe, flags)
    return np.stack([mover.preprocess(probe.input, io.load_image(path, probe.shape[0] != 1)) for path in paths])
