"""Known image data sets: read from the original files, from a Python package that contains them, or downloaded."""

from __future__ import annotations

import gzip
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caffe.data.databases.datum import encode_datum
from caffe.data.databases.lmdb import LmdbWriter
from caffe.data.pipeline.rng import generator
from caffe.data.tools import cifar, mnist
from caffe.data.tools.download import Progress, cache_folder, download
from caffe.data.tools.unpacking import unpack
from caffe.errors import FileError, MissingExtra, require_extra

__all__ = ["KNOWN", "DataSet", "make", "pictures"]

Part = tuple[np.ndarray, np.ndarray]
"""Images (n, H, W), or (n, 3, H, W) in BGR order, of uint8, and their labels (n)."""
_DEBIAN = Path("/usr/share/datasets")
_SEED = 5000


@dataclass(frozen=True)
class DataSet:
    """A data set: the URLs and md5 sums of its files, the function that reads a folder with them, and its class
    names.
    """

    files: tuple[tuple[str, str], ...]
    read: Callable[[Path], dict[str, Part]]
    classes: tuple[str, ...]
    here: Callable[[], Path | None] = lambda: None
    """Finds a folder on this machine that has the files."""


def pictures(name: str, folder: Path | None = None, progress: Progress = lambda *_: None) -> dict[str, Part]:
    """Return the parts "train" and "test" of a known data set.

    They are read from `folder` if given, otherwise from a Python package that contains the files, otherwise from the
    user's cache, to which they are downloaded. Raises FileError and MissingExtra.
    """
    known = KNOWN[name]
    place = folder or known.here()
    if place is None and known.files:
        place = cache_folder() / "data" / name
        for url, md5 in known.files:
            path = download([url], place / url.rpartition("/")[2], md5, progress)
            if path.name.endswith((".tar.gz", ".tgz")):
                unpack(path, place)
    return known.read(place or Path())


def make(
    name: str, out: Path, folder: Path | None = None, overwrite: bool = False, progress: Progress = lambda *_: None
) -> dict[str, int]:
    """Write OUT/NAME_train_lmdb, OUT/NAME_test_lmdb and OUT/NAME_labels.txt; returns the number of records of each."""
    parts = pictures(name, folder, progress)
    counts = {}
    for part, (images, labels) in parts.items():
        with LmdbWriter(out / f"{name}_{part}_lmdb", overwrite) as writer:
            for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
                writer.put(b"%08d" % index, encode_datum(image.reshape(-1, *image.shape[-2:]), label))
        counts[part] = len(labels)
    (out / f"{name}_labels.txt").write_text("".join(f"{each}\n" for each in KNOWN[name].classes))
    return counts


def _idx(folder: Path) -> dict[str, Part]:
    return {part: mnist.read_digits(folder, part) for part in ("train", "test")}


def _cifar10(folder: Path) -> dict[str, Part]:
    top = _inner(folder, "test_batch.bin", "cifar-10-batches-bin")
    train = [cifar.read_batch(top / f"data_batch_{number}.bin") for number in range(1, 6)]
    images, labels = (np.concatenate(each) for each in zip(*train, strict=True))
    parts = {"train": (images, labels), "test": cifar.read_batch(top / "test_batch.bin")}
    return {part: (_blue_first(images), labels) for part, (images, labels) in parts.items()}


def _cifar100(folder: Path) -> dict[str, Part]:
    top, size = _inner(folder, "test.bin", "cifar-100-binary"), 2 + 3072
    parts = {}
    for part in ("train", "test"):
        path = top / f"{part}.bin"
        content = path.read_bytes() if path.is_file() else b""
        if not content or len(content) % size:
            raise FileError(f"{path} has {len(content)} bytes, not a multiple of {size}; expected CIFAR-100, binary")
        rows = np.frombuffer(content, np.uint8).reshape(-1, size)
        parts[part] = _blue_first(rows[:, 2:].reshape(-1, 3, 32, 32)), rows[:, 1]
    return parts


def _svhn(folder: Path) -> dict[str, Part]:
    """The house numbers of 32 x 32 pixels, in MATLAB's files train_32x32.mat and test_32x32.mat."""
    reader: Any = require_extra("scipy.io", "datasets", "reading the .mat files of svhn")
    parts = {}
    for part in ("train", "test"):
        path = folder / f"{part}_32x32.mat"
        try:
            content = reader.loadmat(str(path))
            images, labels = content["X"], content["y"].ravel().astype(np.int64)
        except FileNotFoundError as error:
            raise FileError(f'no file {path.name} in "{folder}"; expected the cropped digits of SVHN there') from error
        except Exception as error:  # scipy raises errors of many types
            raise FileError(f"cannot read {path}: {error!r}; expected the cropped digits of SVHN") from error
        if images.shape[:3] != (32, 32, 3) or images.shape[3:] != labels.shape or images.dtype != np.uint8:
            raise FileError(f"{path}: has images of the shape {images.shape} and {len(labels)} labels; expected SVHN's")
        parts[part] = _blue_first(images.transpose(3, 2, 0, 1)), labels % 10  # its 0 is called 10
    return parts


def _blue_first(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images[:, ::-1])


def _inner(folder: Path, wanted: str, inner: str) -> Path:
    """Return the folder, or the archive's folder within it, whichever contains the file."""
    for top in (folder, folder / inner):
        if (top / wanted).is_file():
            return top
    raise FileError(f'no file {wanted} in "{folder}"; expected the files of the binary version there')


def _digits(folder: Path) -> dict[str, Part]:
    """Read the 1,797 digits (8 x 8 pixels) of scikit-learn; one fifth is the test set."""
    path = folder / "digits.csv.gz"
    try:
        rows = gzip.decompress(path.read_bytes()).decode()
    except (OSError, EOFError) as error:
        raise FileError(f"cannot read {path}: {error}; expected the file of scikit-learn") from error
    table = np.array([line.split(",") for line in rows.split()], np.float32)
    images, labels = np.rint(table[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8), table[:, 64].astype(int)
    order = generator(_SEED, 1).permutation(len(labels))
    test, train = order[: len(order) // 5], order[len(order) // 5 :]
    return {"train": (images[train], labels[train]), "test": (images[test], labels[test])}


def _digits_here() -> Path:
    spec = importlib.util.find_spec("sklearn")  # the package itself is not imported
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(
            'the digits are in the Python package "scikit-learn", which is not installed; install it with: '
            "pip install scikit-learn, or give a folder with its digits.csv.gz"
        )
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data"


def _debian(name: str) -> Callable[[], Path | None]:
    return lambda: _DEBIAN / name if os.path.isdir(_DEBIAN / name) else None


_NUMBERS = tuple(map(str, range(10)))
_CLOTHES = (
    *("T-shirt or top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR100_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_STANFORD = "http://ufldl.stanford.edu/housenumbers/"
_TORONTO = "https://www.cs.toronto.edu/~kriz/"
KNOWN = {
    "fashion_mnist": DataSet(
        (
            (f"{_FASHION}train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            (f"{_FASHION}train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
            (f"{_FASHION}t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
            (f"{_FASHION}t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
        ),
        _idx,
        _CLOTHES,
        _debian("fashion-mnist"),
    ),
    "svhn": DataSet(
        (
            (f"{_STANFORD}train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
            (f"{_STANFORD}test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
        ),
        _svhn,
        _NUMBERS,
    ),
    "digits": DataSet((), _digits, _NUMBERS, _digits_here),
    "cifar10": DataSet(
        ((f"{_TORONTO}cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),), _cifar10, _CIFAR10
    ),
    "cifar100": DataSet(
        ((f"{_TORONTO}cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),),
        _cifar100,
        tuple(_CIFAR100_NAMES.split()),
    ),
}
"""The data sets of `caffe data`, except mnist, whose files have their own names."""
