"""`caffe test`: the report on a classifier."""

from __future__ import annotations

import math
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from caffe import log
from caffe.cli.display import Display
from caffe.cli.flags import Flag
from caffe.errors import CaffeError

if TYPE_CHECKING:
    from caffe.project.tabular.columns import Columns

__all__ = ["FLAGS", "check_report", "choose_part", "score", "wanted"]

REPORT = Flag(
    "report",
    False,
    "Report accuracy with its 95 % interval, classes, and calibration of a classifier; the default in a project.",
)
CONFUSION = Flag("confusion", "", "Write the confusion matrix to this file: a table (.csv) or a picture (.png, .svg).")
CALIBRATION = Flag("calibration", "", "Draw confidence against accuracy to this file (.png, .svg).")
WORST = Flag("worst", 0, "Write this many of the worst mistakes as pictures to the folder -out, for `caffe relabel`.")
PART = Flag("part", "", "In a project: train scores the training data, for -worst; the default is val.")
FLAGS = (REPORT, CONFUSION, CALIBRATION, WORST, PART)


def wanted(flags: SimpleNamespace) -> bool:
    """Whether a flag asks for the report."""
    return any(getattr(flags, flag.name) != flag.default for flag in FLAGS)


def check_report(flags: SimpleNamespace) -> None:
    """Raise a `CaffeError` for contradicting flags, before anything is run."""
    given = [f"-{flag.name}" for flag in FLAGS if getattr(flags, flag.name) != flag.default]
    if given and (flags.mc or flags.ensemble):
        raise CaffeError(f"{', '.join(given)}: the report describes one net and one run; remove -mc and -ensemble")
    if flags.worst < 0:
        raise CaffeError(f"-worst {flags.worst}: expected a number of pictures")
    if bool(flags.worst) != bool(flags.out):
        raise CaffeError("-worst N writes its pictures into the folder -out FOLDER: give both, or neither")
    if flags.part not in ("", "train", "val"):
        raise CaffeError(f"-part {flags.part}: expected train or val")
    if flags.worst and os.path.isdir(flags.out) and os.listdir(flags.out):
        raise CaffeError(f'"{flags.out}": already exists; give a folder that is new or empty')
    from caffe import plot

    for path in (flags.confusion, flags.calibration):
        if path and not (path == flags.confusion and path.lower().endswith(".csv")):
            plot.check_output(path)


def choose_part(flags: SimpleNamespace) -> None:
    """Use the training data instead of the validation data if -part asks for it."""
    if flags.part != "train":
        return
    from caffe.ensemble.score import sources_replaced

    if not os.path.isdir("train_lmdb"):
        raise CaffeError("-part train: there is no train_lmdb here; run the command in a project folder")
    flags.model = sources_replaced(flags.model, "train_lmdb")


def score(net: Any, flags: SimpleNamespace, display: Display, known: list[str] | Columns) -> None:
    """Run the test and print the report. `known` are the names of the classes, or the columns of a regression."""
    if isinstance(known, list):
        _score_classes(net, flags, display, known)
    else:
        _score_numbers(net, flags, display, known)


def _score_classes(net: Any, flags: SimpleNamespace, display: Display, names: list[str]) -> None:
    from caffe.evaluation import Judgement
    from caffe.evaluation.answers import collect, head_of
    from caffe.reliability import Reliability, draw
    from caffe.solver.epochs import records

    head = head_of(net)
    net.optimize(compile=flags.compile, engine=flags.engine, keep=[head.outputs, head.labels])
    batch, count = records(net)
    batches = math.ceil(count / batch) if flags.part == "train" and count else flags.iterations
    log.info("caffe.cpp:281", f"Running for {batches} iterations.")
    with display.bar(f"test {net.name}", batches) as bar:
        probabilities, labels, loss = collect(
            net, head, batches, lambda done, mean: bar.update(done, f"loss {log.number(mean)}")
        )
    log.info("caffe.cpp:309", f"Loss: {log.number(loss)}")
    known = (labels >= 0) & (labels < probabilities.shape[1])
    if not known.any():
        raise CaffeError("none of the test data's labels is a class of the net")
    judgement = Judgement(probabilities[known], labels[known], names)
    log.info("caffe.cpp:321", f"accuracy = {log.number(judgement.accuracy)}")
    print(judgement.text())
    if not known.all():
        print(f"{int((~known).sum())} items whose label is not a class are left out")
    if flags.confusion:
        judgement.write_confusion(flags.confusion)
        print(f"wrote {flags.confusion}")
    if flags.calibration:
        kind = Reliability()
        kind.add(judgement.probabilities, judgement.labels)
        draw({"the net": kind}, flags.calibration)
        print(f"wrote {flags.calibration}")
    if flags.worst:
        if not known.all():
            raise CaffeError("-worst needs a label for every item of the test data")
        _write_worst(net, flags, judgement)


def _score_numbers(net: Any, flags: SimpleNamespace, display: Display, columns: Columns) -> None:
    """Print the report on a regression project, in the units of the table."""
    from caffe.evaluation import Regression
    from caffe.evaluation.answers import collect_numbers, number_head

    if wanted(flags):
        raise CaffeError(f"{columns.label} is a number: -report, -confusion, -calibration and -worst need classes")
    head = number_head(net)
    net.optimize(compile=flags.compile, engine=flags.engine, keep=[head.outputs, head.labels])
    log.info("caffe.cpp:281", f"Running for {flags.iterations} iterations.")
    with display.bar(f"test {net.name}", flags.iterations) as bar:
        found, right, loss = collect_numbers(
            net, head, flags.iterations, lambda done, mean: bar.update(done, f"loss {log.number(mean)}")
        )
    log.info("caffe.cpp:309", f"Loss: {log.number(loss)}")
    judged = Regression(found * columns.std + columns.mean, right * columns.std + columns.mean, columns.label)
    print(judged.text())


def _write_worst(net: Any, flags: SimpleNamespace, judgement: Any) -> None:
    from caffe.data.databases.base import backend_of
    from caffe.evaluation.worst import write_worst
    from caffe.layers.data import Data

    layers = [layer for layer in net.layers if isinstance(layer, Data)]
    if len(layers) != 1:
        raise CaffeError(f"-worst takes the pictures from the database of a Data layer; the net has {len(layers)}")
    source = layers[0].spec.data_param
    backend = backend_of(source)
    for line in write_worst(flags.out, judgement, flags.worst, backend, source.source):
        print(line)
    print(
        f"wrote {flags.out}; move wrong pictures into the folder of their class, or remove them; "
        f"then: caffe relabel {flags.out}"
    )
