"""`caffe extract_features`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from caffe import log
from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import ENGINE
from caffe.errors import CaffeError, did_you_mean

_PLACE = "extract_features.cpp"


@command(
    ENGINE,
    task="data",
    arguments="WEIGHTS MODEL BLOB[,BLOB...] DATASET[,DATASET...] BATCHES DB_TYPE [MODE] [DEVICE]",
)
def extract_features(flags: SimpleNamespace, display: Display) -> None:
    """Write the values of blobs of a net to files.

    Runs the net MODEL in the phase TEST for BATCHES batches, and writes each BLOB to the DATASET at the same position
    in the list. DB_TYPE is lmdb or leveldb (a Datum of floats for each image), or hdf5 or npz (a file with one array
    with the blob's name). MODE is CPU or GPU, DEVICE the number of the GPU ("DEVICE_ID=0" or "0").

        caffe extract_features net.caffemodel net.prototxt fc6,fc7 fc6_lmdb,fc7_lmdb 10 lmdb
    """
    weights, model, blobs, datasets, batches, kind = flags.arguments[:6]
    names, paths = blobs.split(","), datasets.split(",")
    if len(names) != len(paths):
        raise CaffeError(
            f"the number of blob names and dataset names must be equal: {len(names)} blobs, {len(paths)} datasets"
        )
    if not batches.isdecimal() or int(batches) < 1:
        raise CaffeError(f'the number of batches is "{batches}", expected at least 1')
    _use(flags.arguments[6:], display)
    from caffe import mode
    from caffe.net import Net
    from caffe.proto import caffe_pb2

    net = Net(model, caffe_pb2.TEST, level=0, weights=weights, device=mode.device())
    try:
        for name in names:
            if name not in net.blobs:
                hint = did_you_mean(name, net.blobs)
                raise CaffeError(f'Unknown feature blob name "{name}" in the network {model}{hint}')
        net.optimize(keep=names, engine=flags.engine)
        _extract(net, dict(zip(names, paths, strict=True)), int(batches), kind, display)
    finally:
        net.close()
    _tell(display, f"{_PLACE}:181", "Successfully extracted the features!")


def _extract(net: Any, targets: dict[str, str], batches: int, kind: str, display: Display) -> None:
    from contextlib import ExitStack

    from caffe.data.tools.features import open_features

    with ExitStack() as stack, display.bar(net.name or "features", batches) as bar:
        writers = {}
        for name, path in targets.items():
            log.info(f"{_PLACE}:125", f"Opening dataset {path}")
            writers[name] = stack.enter_context(open_features(kind, path, name))
        _tell(display, f"{_PLACE}:133", "Extracting Features")
        for batch in range(batches):
            net.forward()
            for name, writer in writers.items():
                before = writer.count
                writer.add(net.blobs[name].data)
                for count in range(before + 1, writer.count + 1):
                    if count % 1000 == 0:
                        _progress(f"{_PLACE}:161", count, name, display)
            bar.update(batch + 1)
        for name, writer in writers.items():
            if writer.count % 1000:
                _progress(f"{_PLACE}:176", writer.count, name, display)


def _progress(place: str, count: int, name: str, display: Display) -> None:
    if not display.terminal:
        log.error(place, f"Extracted features of {count} query images for feature blob {name}")


def _use(words: list[str], display: Display) -> None:
    from caffe.cli import _device

    if not words or words[0] != "GPU":
        _device.use("", "", "")
        _tell(display, f"{_PLACE}:62", "Using CPU")
        return
    number = words[1].removeprefix("DEVICE_ID=") if len(words) > 1 else "0"
    _tell(display, f"{_PLACE}:50", "Using GPU")
    _device.use(number, _PLACE, "the command line")
    _tell(display, f"{_PLACE}:57", f"Using Device_id={number}")


def _tell(display: Display, place: str, text: str) -> None:
    """Log a line that Caffe logs as an error so that it is always visible. On a terminal it is printed as a plain
    line.
    """
    if display.terminal:
        log.info(place, text)
        display.say(text)
    else:
        log.error(place, text)
