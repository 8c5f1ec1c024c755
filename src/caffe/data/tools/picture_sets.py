"""Known data sets of pictures of any size: folders train/CLASS and val/CLASS, made from the original files."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffe.data.pipeline.rng import generator
from caffe.data.tools.download import Progress, cache_folder, download
from caffe.data.tools.unpacking import unpack
from caffe.errors import FileError, MissingExtra
from caffe.opencv import cv2
from caffe.proto import files

__all__ = ["PICTURE_SETS", "PictureSet", "arrange", "cached"]

Member = tuple[str, str, "Path | np.ndarray"]
"""The part ("train" or "val"), the place CLASS/NAME, and the file or the pixels."""
_ARCHIVES = (".tgz", ".tar.gz", ".tar")
_DONE = ".complete"


@dataclass(frozen=True)
class PictureSet:
    """A data set: URLs and md5 sums of its files, how to recognize them in a folder, and how to split the pictures."""

    files: tuple[tuple[str, str], ...]
    members: Callable[[Path], Iterator[Member]]
    marks: tuple[str, ...] = ()
    """Files or folders that all exist in a folder with the unpacked original files."""
    here: Callable[[], Path | None] = lambda: None
    """A folder of this machine with the files."""


def arrange(
    name: str, out: Path, folder: Path | None = None, overwrite: bool = False, progress: Progress = lambda *_: None
) -> dict[str, int]:
    """Write OUT/train/CLASS and OUT/val/CLASS; return the number of pictures in each part.

    The original files are read from `folder`, unpacked or as archives, otherwise from a package, otherwise they are
    downloaded into the user's cache. On an error, no incomplete OUT remains. Raises FileError if original files are
    missing, or if OUT is not empty; with `overwrite`, an OUT that this function wrote is replaced.
    """
    if out.exists() and any(out.iterdir()) and not (overwrite and (out / _DONE).exists()):
        raise FileError(f'"{out}": already exists; give -overwrite if `caffe data` made it, or another folder -out')
    known = PICTURE_SETS[name]
    making = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(making, ignore_errors=True)
    counts = {"train": 0, "val": 0}
    try:
        place = _originals(name, known, folder, making / "unpacked", progress)
        for part, where, content in known.members(place):
            _put(making / part / where, content)
            counts[part] += 1
            progress(sum(counts.values()), 0)
        shutil.rmtree(making / "unpacked", ignore_errors=True)
        (making / _DONE).touch()
        shutil.rmtree(out, ignore_errors=True)
        making.rename(out)
    except OSError as error:
        raise FileError(f'cannot make "{out}": {error}') from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return counts


def cached(name: str, progress: Progress = lambda *_: None) -> Path:
    """Return the folder of a data set in the user's cache; create it if necessary."""
    out = cache_folder() / "data" / name / "pictures"
    if not (out / _DONE).exists():
        shutil.rmtree(out, ignore_errors=True)
        arrange(name, out, progress=progress)
    return out


def _put(path: Path, content: Path | np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        try:
            os.link(content, path)  # no second copy in the cache
        except OSError:
            shutil.copyfile(content, path)
        return
    _, data = cv2.imencode(path.suffix, content)
    path.write_bytes(data.tobytes())


def _originals(name: str, known: PictureSet, folder: Path | None, scratch: Path, progress: Progress) -> Path:
    """The folder of the unpacked originals."""
    place = folder or known.here()
    if place is None:
        place = cache_folder() / "data" / name
        for url, md5 in known.files:
            unpack(download([url], place / url.rpartition("/")[2], md5, progress), place)
    for top in (place, *sorted(path for path in _inner(place))):
        if all((top / mark).exists() for mark in known.marks):
            return top
    archives = [path for path in _listed(place) if path.name.endswith(_ARCHIVES)]
    for path in archives:
        unpack(path, scratch)
    for top in (scratch, *_inner(scratch)) if archives else ():
        if all((top / mark).exists() for mark in known.marks):
            return top
    wanted = " and ".join(url.rpartition("/")[2] for url, _ in known.files)
    raise FileError(f'"{place}": has no {", ".join(known.marks)}; expected what {wanted} hold, unpacked or not')


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise FileError(f'cannot read the folder "{folder}": {error.strerror}') from error


def _inner(folder: Path) -> list[Path]:
    return [path for path in _listed(folder) if path.is_dir()]


def _imagenette(top: Path) -> Iterator[Member]:
    """Ten classes of ImageNet that are easy to tell apart, in folders that ImageNet's numbers name."""
    for part in ("train", "val"):
        for folder in _inner(top / part):
            label = _NUMBERS.get(folder.name, folder.name)
            for path in _listed(folder):
                if path.suffix.lower() in (".jpeg", ".jpg", ".png"):
                    yield part, f"{label}/{path.name}", path


def _pets(top: Path) -> Iterator[Member]:
    """37 breeds of cats and dogs; annotations/trainval.txt and test.txt name the pictures of each part."""
    for part, name in (("train", "trainval.txt"), ("val", "test.txt")):
        for number, line in enumerate(files.lines(top / "annotations" / name, "list of pets"), 1):
            if not line or line.startswith("#"):
                continue
            stem = line.split()[0]
            match = re.fullmatch(r"(\w+)_\d+", stem)
            if match is None:
                raise FileError(f'{top / "annotations" / name}:{number}: "{stem}"; expected the name of a picture')
            yield part, f"{match[1].lower()}/{stem}.jpg", top / "images" / f"{stem}.jpg"


def _materials(top: Path) -> Iterator[Member]:
    """200 parts each of scikit-image's photographs of brick, grass and gravel: no validation part overlaps another."""
    for number, name in enumerate(_MATERIALS):
        pixels = cv2.imread(str(top / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        if pixels is None:
            raise FileError(f'cannot read "{top / name}.png"; expected the photograph of scikit-image')
        border = pixels.shape[1] * 3 // 4
        for part, count, (begin, end) in (("train", 160, (0, border)), ("val", 40, (border, pixels.shape[1]))):
            rng = generator(_SEED, number, end)
            for index in range(count):
                row = int(rng.integers(pixels.shape[0] - _SIDE + 1))
                column = int(rng.integers(begin, end - _SIDE + 1))
                yield part, f"{name}/{index:03d}.png", pixels[row : row + _SIDE, column : column + _SIDE]


def _skimage() -> Path:
    spec = importlib.util.find_spec("skimage")  # its code is not imported
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(
            'the photographs are in the Python package "scikit-image", which is not installed; install it with: '
            "pip install scikit-image, or give a folder with brick.png, grass.png and gravel.png"
        )
    return Path(spec.submodule_search_locations[0]) / "data"


_SEED, _SIDE = 5001, 64
_MATERIALS = ("brick", "grass", "gravel")
_NUMBERS = {
    "n01440764": "tench",
    "n02102040": "english_springer",
    "n02979186": "cassette_player",
    "n03000684": "chain_saw",
    "n03028079": "church",
    "n03394916": "french_horn",
    "n03417042": "garbage_truck",
    "n03425413": "gas_pump",
    "n03445777": "golf_ball",
    "n03888257": "parachute",
}
_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/"
PICTURE_SETS = {
    "imagenette": PictureSet(
        (("https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz", "e793b78cc4c9e9a4ccc0c1155377a412"),),
        _imagenette,
        ("train", "val"),
    ),
    "pets": PictureSet(
        (
            (f"{_OXFORD}images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c"),
            (f"{_OXFORD}annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f"),
        ),
        _pets,
        ("images", "annotations"),
    ),
    "materials": PictureSet((), _materials, ("brick.png", "grass.png", "gravel.png"), _skimage),
}
"""The data sets of `caffe data` that become folders."""
