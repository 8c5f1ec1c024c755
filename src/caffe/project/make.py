"""Creates a project: a folder with databases, nets, solver and README, ready for `caffe train`."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffe.data.databases.datum import encode_datum, planes
from caffe.data.databases.lmdb import LmdbWriter
from caffe.data.pipeline.pool import ordered
from caffe.data.pipeline.rng import generator
from caffe.data.tools.statistics import Moments
from caffe.errors import CaffeError, DataError, FileError, NetError
from caffe.net import Net
from caffe.project import texts
from caffe.project.looking import Looked, Picture, look
from caffe.project.plan import NETS, Plan, choose_net, plan_for
from caffe.project.sources import Source
from caffe.project.split import split
from caffe.proto import files, weights
from caffe.proto.caffe_pb2 import TEST, NetParameter
from caffe.proto.text import parse
from caffe.zoo.preparation import Preparation, fitted, recolored

__all__ = ["Settings", "make"]

Progress = Callable[[str, int, int], None]
"""Called with the current task, the amount done, and the total amount."""

_ORDER = 1 << 40


@dataclass(frozen=True)
class Settings:
    """The user's settings; 0 and "" mean an automatic choice."""

    net: str = ""
    finetune: str = ""
    val: int = 20
    seed: int = 1
    size: int = 0
    batch: int = 0
    epochs: int = 0


def make(folder: str | Path, source: Source, settings: Settings, progress: Progress) -> tuple[Plan, Looked]:
    """Write a project for the examples of a source. On an error nothing remains on disk.

    Raises FileError if the folder is not empty, and DataError for examples that cannot be used for training.
    """
    top = Path(folder)
    refuse_present(top)
    net = choose_net(settings.net, False, 0, bool(settings.finetune)) if settings.net or settings.finetune else ""
    looked = look(source, lambda done: progress("reading the pictures", done, len(source.examples)))
    net = net or choose_net("", looked.grey, looked.middle, False)
    train, val = split(looked, settings.val, settings.seed)
    order = generator(settings.seed, _ORDER).permutation(len(train))
    train = [train[index] for index in order]
    with unfinished(top) as made:
        plan = _planned(top, net, looked, (len(train), len(val)), settings, (0.0,))
        moments = _databases(made, source, looked.classes, {"train": train, "val": val}, plan.preparation, progress)
        mean = moments.mean()
        weights.write_mean(made / "mean.binaryproto", mean)
        channels = tuple(float(value) for value in mean.mean((1, 2), dtype=np.float64))
        plan = _planned(top, net, looked, (len(train), len(val)), settings, channels)
        _write_files(made, plan, looked, {"train": train, "val": val})
        _check(made, plan)
    return plan, looked


def refuse_present(top: Path) -> None:
    """Raise FileError if the project's path exists already."""
    if top.exists() and (not top.is_dir() or any(top.iterdir())):
        raise FileError(f'"{top}": already exists; give a folder that is new or empty')


class unfinished:  # noqa: N801 - used as a function
    """Create a folder with a temporary name. It is renamed if the block succeeds, and removed otherwise."""

    def __init__(self, top: Path) -> None:
        self.top, self.path = top, top.parent / f".{top.name}.unfinished"

    def __enter__(self) -> Path:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir()
        except OSError as error:
            raise FileError(f'cannot make the folder "{self.top}": {error.strerror}') from error
        return self.path

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                if self.top.exists():
                    self.top.rmdir()
                self.path.rename(self.top)
        except OSError as error:
            raise FileError(f'cannot make the folder "{self.top}": {error.strerror}') from error
        finally:
            shutil.rmtree(self.path, ignore_errors=True)


def _planned(
    top: Path, net: str, looked: Looked, counts: tuple[int, int], settings: Settings, mean: tuple[float, ...]
) -> Plan:
    name = top.resolve().name
    path = os.path.relpath(settings.finetune, top) if settings.finetune else ""
    sizes = (settings.size, settings.batch, settings.epochs)
    return plan_for(name, net, looked.classes, counts, looked.grey, looked.middle, mean, path, *sizes)


def _databases(
    made: Path,
    source: Source,
    classes: list[str],
    parts: dict[str, list[Picture]],
    preparation: Preparation,
    progress: Progress,
) -> Moments:
    """Write train_lmdb and val_lmdb; returns the sums over the training pictures."""
    number_of = {label: number for number, label in enumerate(classes)}
    moments: Moments | None = None
    done, total = 0, sum(map(len, parts.values()))
    for part, pictures in parts.items():
        with LmdbWriter(made / f"{part}_lmdb") as writer:
            for index, (picture, image) in enumerate(_stored(source, pictures, preparation)):
                writer.put(
                    record_key(index, picture.example.name), encode_datum(image, number_of[picture.example.label])
                )
                if part == "train":
                    moments = moments or Moments(image.shape)
                    moments.add(image)
                done += 1
                progress("writing the databases", done, total)
    assert moments is not None
    return moments


def _stored(source: Source, pictures: list[Picture], preparation: Preparation) -> Iterator[tuple[Picture, np.ndarray]]:
    """Yield the pictures with their pixels (C, H, W) as stored in the database."""

    def one(picture: Picture) -> tuple[Picture, np.ndarray]:
        try:
            pixels = source.read(picture.example)
        except DataError as error:
            raise DataError(f'"{picture.example.name}" {error}; it was readable before') from error
        return picture, planes(fitted(recolored(pixels, preparation.color), preparation.resize))

    yield from ordered(one, pictures)


def record_key(index: int, name: str) -> bytes:
    """Return the key of a record: its number, and the end of its name."""
    return b"%08d_" % index + os.fsencode(os.path.basename(name))[-200:]


def _write_files(made: Path, plan: Plan, looked: Looked, parts: dict[str, list[Picture]]) -> None:
    train, val = (dict.fromkeys(plan.classes, 0) for _ in range(2))
    for counts, part in ((train, "train"), (val, "val")):
        for picture in parts[part]:
            counts[picture.example.label] += 1
    facts = {
        "name": plan.name,
        "net": "deploy.prototxt",
        "snapshot_prefix": f"snapshots/{plan.name}",
        "labels": "labels.txt",
        **plan.preparation.facts(),
    }
    rows = [(label, train[label], val[label]) for label in plan.classes]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("key", "file", "label", "split"))
    for part, pictures in parts.items():
        for index, picture in enumerate(pictures):
            example = picture.example
            key = record_key(index, example.name).decode("utf-8", "surrogateescape")
            writer.writerow((key, example.name, example.label, part))
    contents = {
        "train_val.prototxt": texts.train_net(plan),
        "deploy.prototxt": texts.deploy_net(plan),
        "solver.prototxt": texts.solver(plan),
        "labels.txt": "".join(f"{label}\n" for label in plan.classes),
        "README.md": texts.readme(plan, facts, looked.notes, rows),
        "examples.csv": table.getvalue(),
    }
    if looked.unusable:
        contents["left_out.txt"] = "".join(f"{name}: {why}\n" for name, why in looked.unusable)
    for name, text in contents.items():
        with files.atomic(made / name) as file:
            file.write(text.encode("utf-8", "surrogateescape"))
    (made / "snapshots").mkdir()


def _check(made: Path, plan: Plan) -> None:
    """Build the deploy net, and check that the given weights fit it."""
    param = parse((made / "deploy.prototxt").read_text(), NetParameter(), "deploy.prototxt")
    try:
        net = Net(param, TEST)
    except NetError as error:
        raise CaffeError(f"{plan.net} with pictures of {plan.side} pixels: {error}") from error
    if not plan.weights:
        return
    found = weights.read(os.path.normpath(made / plan.weights))
    fitting = [name for name in net.params if name in found]
    if not fitting:
        known = ", ".join(list(found)[:3])
        raise DataError(
            f'"{plan.weights}" has no layer of {plan.net}: it has {known} ..., the net has {next(iter(net.params))}'
        )
    for name in fitting:
        own, theirs = net.params[name][0].shape, found[name][0].shape
        if _bare(own) != _bare(theirs):
            fact = f'weights of layer "{name}" have the shape {tuple(theirs)}, the net needs {tuple(own)}'
            raise DataError(f"{plan.weights}: {fact}; are they those of {plan.net} at {NETS[plan.net].side} pixels?")


def _bare(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape without the leading ones of old files."""
    first = next((index for index, size in enumerate(shape) if size != 1), len(shape))
    return tuple(shape[first:])
