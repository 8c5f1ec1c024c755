"""`caffe compute_image_mean`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from caffe import log
from caffe.cli.command import command
from caffe.cli.display import Bar, Display
from caffe.cli.flags import Flag
from caffe.errors import CaffeError, FileError

if TYPE_CHECKING:
    import numpy as np

    from caffe.data.tools.statistics import Moments

_PLACE = "compute_image_mean.cpp"
_OWN = [
    Flag("std", False, "Also write the standard deviation of each value, for std_file, to OUTPUT_FILE with .std."),
    Flag("pca", False, "Also write the principal components, for whitening_file, to OUTPUT_FILE with .pca."),
    Flag("components", 0, "How many principal components to keep; 0 keeps all."),
    Flag("whiten", "", "Scale the components to variance 1: pca, or zca, which rotates them back to images."),
    Flag("epsilon", "1e-5", "Value that -whiten adds to the variances, as a fraction of the largest."),
]


def _read_backends() -> list[str]:
    """Return the names of the backends that can be read, in lower case, as the flag takes them."""
    from caffe.data import READERS

    return [name.lower() for name in READERS.names()]


_BACKEND = Flag("backend", "lmdb", "Backend of the database; tar is a folder of shards.", known=_read_backends)


@command(_BACKEND, *_OWN, task="data", arguments="INPUT_DB [OUTPUT_FILE]")
def compute_image_mean(flags: SimpleNamespace, display: Display) -> None:
    """Compute the mean image of a database.

    Use OUTPUT_FILE as mean_file in transform_param. The command also prints the mean of each channel, for mean_value.
    -std and -pca write further files next to it: `mean.std.binaryproto` and `mean.pca.binaryproto` for
    `mean.binaryproto`.

        caffe compute_image_mean train_lmdb mean.binaryproto
        caffe compute_image_mean --pca -whiten zca cifar10_train_lmdb mean.binaryproto
    """
    from caffe.data import open_source
    from caffe.data.databases.base import WrongBackend
    from caffe.data.databases.datum import DatumReader
    from caffe.data.tools.statistics import measure
    from caffe.proto import weights

    path, output = [*flags.arguments, ""][:2]
    epsilon = _check(flags, output)
    try:
        source = open_source(flags.backend.upper(), path)
    except WrongBackend as error:
        raise FileError(f"{error.fact}; give -backend={error.found.lower()}") from error
    if DatumReader.compressed(source.first()[1]):
        log.info(f"{_PLACE}:57", "Decoding Datum")
    log.info(f"{_PLACE}:70", "Starting iteration")
    with display.bar(path, source.count()) as bar:
        moments = measure(source, flags.std, flags.pca, lambda count: _progress(count, bar))
    if moments.count % 10000:
        log.info(f"{_PLACE}:101", f"Processed {moments.count} files.")
    mean = moments.mean()
    if output:
        log.info(f"{_PLACE}:108", f"Write to {output}")
        weights.write_mean(output, mean)
        display.say(f"wrote {output}: {moments.count:,} images")
    _tell_channels(mean, display)
    _write_more(flags, output, moments, epsilon, display)


def _check(flags: SimpleNamespace, output: str) -> float:
    """Return the number in -epsilon. Raises CaffeError for contradicting flags."""
    if (flags.std or flags.pca) and not output:
        raise CaffeError("-std and -pca derive their file names from OUTPUT_FILE: give OUTPUT_FILE")
    if flags.whiten not in ("", "pca", "zca"):
        raise CaffeError(f'-whiten "{flags.whiten}": expected pca or zca')
    if (flags.whiten or flags.components) and not flags.pca:
        raise CaffeError("-whiten and -components apply to principal components: give -pca too")
    try:
        return float(flags.epsilon)
    except ValueError:
        raise CaffeError(f'-epsilon "{flags.epsilon}": expected a number, such as 1e-5') from None


def _progress(count: int, bar: Bar) -> None:
    if count % 10000 == 0:
        log.info(f"{_PLACE}:95", f"Processed {count} files.")
    bar.update(count)


def _tell_channels(mean: np.ndarray, display: Display) -> None:
    log.info(f"{_PLACE}:114", f"Number of channels: {len(mean)}")
    for index, channel in enumerate(mean):
        total = channel.cumsum(dtype="f4")[-1]  # summed sequentially in float32, as in Caffe
        log.info(f"{_PLACE}:119", f"mean_value channel [{index}]: {log.number(total / channel.size)}")
        display.say(f"mean_value: {log.number(total / channel.size)}")


def _write_more(flags: SimpleNamespace, output: str, moments: Moments, epsilon: float, display: Display) -> None:
    """Write the files of -std and -pca."""
    from caffe.data.tools.statistics import components
    from caffe.proto import weights

    more = {}
    if flags.std:
        more["std"] = moments.std()
    if flags.pca:
        matrix = components(moments.covariance(), flags.components, flags.whiten, epsilon)
        more["pca"] = matrix.reshape(-1, *moments.shape)
    for kind, array in more.items():
        path = Path(output)
        path = path.with_name(f"{path.stem}.{kind}{path.suffix}")
        log.info(_PLACE, f"Write to {path}")
        weights.write_mean(path, array)
        display.say(f"wrote {path}")
