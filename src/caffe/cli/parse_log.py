"""`caffe parse_log`."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag
from caffe.errors import FileError

DELIMITER = Flag("delimiter", ",", "Separator of the columns.")


@command(DELIMITER, task="tools", arguments="LOG [FOLDER]")
def parse_log(flags: SimpleNamespace, display: Display) -> None:
    """Convert a training log to tables.

    Writes LOG.train and LOG.test to FOLDER (default: the current folder): a row for each iteration that the log
    reports, with the columns NumIters, Seconds, LearningRate and one for each output of the net. With several test
    nets, LOG.test has a row for each of them, in their order.

        caffe parse_log caffe.INFO .
    """
    from caffe import train_log

    path, folder = flags.arguments[0], Path(flags.arguments[1] if len(flags.arguments) > 1 else ".")
    if not os.path.isdir(folder):
        raise FileError(f"there is no folder {folder}; make it first")
    tables = train_log.read(path)
    for kind, rows in (("train", tables.train), ("test", tables.test)):
        out = folder / f"{Path(path).name}.{kind}"
        train_log.write(rows, out, flags.delimiter)
        print(f"wrote {out}: {len(rows)} rows")
