"""`caffe new`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag
from caffe.errors import CaffeError

if TYPE_CHECKING:
    from caffe.project.sources import Source

IMAGES = Flag(
    "images", "", "Folder with a subfolder of pictures for each class, or with train/ and val/ that contain these."
)
CSV = Flag(
    "csv", "", "Table of files and labels (paths are relative to -images, or to the table), or of numbers and words."
)
LABEL = Flag("label", "", "Column of a table of numbers and words that the net predicts.")
TASK = Flag(
    "task",
    "",
    "classification or regression, for a table of numbers and words. The default is regression if the label has many "
    "different numbers.",
)
DROP = Flag("drop", "", "Columns of a table of numbers and words that the net does not read, separated by ','.")
DATA = Flag("data", "", "A known data set, by its name in `caffe data`: cifar10, digits and others.")
ARRAYS = Flag("arrays", "", "An .npz file with the arrays images and labels, or x (rows, columns) and y.")
NET = Flag(
    "net",
    "",
    "lenet, cifar_quick, alexnet, googlenet, resnet18, resnet50, mobilenet_v2 or squeezenet; by default lenet for "
    "small grey pictures, else cifar_quick.",
)
FINETUNE = Flag("finetune", "", "Initial weights (.caffemodel); the last layer is trained from scratch.")
VAL = Flag("val", 20, "Percentage of each class used for validation, if the data are not split already.")
GROUP = Flag(
    "group",
    "",
    "Pictures that stay together when the data are split: folder for those in one folder within a class, or a "
    "regular expression for a part of their path, such as '(object[0-9]+)'.",
)
SEED = Flag("seed", 1, "Seed of the split into training and validation data.")
SIZE = Flag("size", 0, "Side of the net's input in pixels; 0: automatic.")
BATCH = Flag("batch", 0, "Batch size; 0: automatic.")
EPOCHS = Flag("epochs", 0, "Number of epochs; 0: automatic.")

_OWN = (IMAGES, CSV, ARRAYS, DATA, NET, FINETUNE, VAL, GROUP, SEED, SIZE, BATCH, EPOCHS)
_OF_TABLES = (LABEL, TASK, DROP)
_OF_PICTURES = (IMAGES, DATA, NET, FINETUNE, GROUP, SIZE)


@command(*_OWN, *_OF_TABLES, task="train", arguments="PROJECT")
def new(flags: SimpleNamespace, display: Display) -> None:
    """Make a project from pictures or a table: all that training needs.

    Checks the pictures (damaged files, duplicates, sizes, balance of the classes), splits them into training and
    validation data, and writes the folder PROJECT: databases, mean, train_val.prototxt, deploy.prototxt,
    solver.prototxt, labels.txt, and a README.md with the next commands. The names of the folders are the classes. If
    there are folders train/ and val/ (or valid/, validation/), they are used as the split. `caffe train` in PROJECT
    needs no arguments.

    For a table of numbers and words (-csv, with column names in the first line), the net is a multilayer perceptron on
    HDF5 files. It predicts the column -label, a class or a number. Numbers are normalized with the statistics of the
    training rows, words become one-hot vectors, and an extra input marks a missing number.

        caffe new flowers -images photos
        caffe new flowers -images photos -net resnet18 -finetune resnet18.caffemodel
        caffe new parts -csv parts.csv -images parts
        caffe new houses -csv houses.csv -label price -drop address
    """
    for name in ("size", "batch", "epochs", "seed"):
        if getattr(flags, name) < 0:
            raise CaffeError(f"-{name} {getattr(flags, name)}: expected a number that is not negative")
    if not _new_of_table(flags):
        _new_of_pictures(flags, display)
    print(f"wrote {Path(flags.arguments[0])}; next: cd {flags.arguments[0]}; caffe train")


def _new_of_pictures(flags: SimpleNamespace, display: Display) -> None:
    from caffe import project

    settings = project.Settings(flags.net, flags.finetune, flags.val, flags.seed, flags.size, flags.batch, flags.epochs)
    source = _source(flags)
    with display.bar("new", 0) as bar:
        plan, looked = project.make(
            flags.arguments[0], source, settings, lambda what, done, total: bar.update(done, what, total)
        )
    print(f"{len(looked.pictures):,} pictures of {len(plan.classes)} classes: {_named(plan.classes)}")
    print(f"{plan.train:,} to train on, {plan.val:,} to validate with")
    for note in looked.notes:
        print(f"note: {note}")
    print(f"{plan.net} with pictures of {plan.side} pixels, {plan.epochs} epochs of {plan.iterations} iterations")


def _new_of_table(flags: SimpleNamespace) -> bool:
    """Make a project if the data are a table of numbers and words; False for pictures."""
    from caffe.project import tabular

    given = [f"-{flag.name}" for flag in _OF_TABLES if getattr(flags, flag.name)]
    table = None
    if flags.arrays and not flags.csv:
        table = tabular.Table.of_arrays(flags.arrays) if tabular.holds_rows(flags.arrays) else None
    elif flags.csv and not flags.images and tabular.is_table(flags.csv, flags.label):
        table = tabular.Table.read(flags.csv)
    if table is None:
        if given:
            raise CaffeError(f"{', '.join(given)}: applies to a table of numbers and words; give one with -csv FILE")
        return False
    if others := [f"-{flag.name}" for flag in _OF_PICTURES if getattr(flags, flag.name)]:
        raise CaffeError(f"{', '.join(others)}: applies to pictures, but {table.path} is a table; remove it")
    drop = tuple(name.strip() for name in flags.drop.split(",") if name.strip())
    settings = tabular.TableSettings(flags.label, flags.task, drop, flags.val, flags.seed, flags.batch, flags.epochs)
    plan, notes = tabular.make_table(flags.arguments[0], table, settings)
    what = (
        f"{len(plan.columns.classes)} classes: {_named(tuple(plan.columns.classes))}" if plan.classifies else "a number"
    )
    print(f"{plan.train + plan.val:,} rows; {plan.columns.label} is {what}")
    print(f"{plan.train:,} to train on, {plan.val:,} to validate with")
    for note in notes:
        print(f"note: {note}")
    print(
        f"{plan.columns.width} values of {len(plan.columns.columns)} columns, hidden layers of "
        f"{plan.hidden[0]} and {plan.hidden[1]}, {plan.epochs} epochs of {plan.iterations} iterations"
    )
    return True


def _named(classes: tuple[str, ...]) -> str:
    return ", ".join(classes[:10]) + (" ..." if len(classes) > 10 else "")


def _source(flags: SimpleNamespace) -> Source:
    """Return the examples that the flags name."""
    from caffe import project

    if sum(map(bool, (flags.csv or flags.images, flags.arrays, flags.data))) != 1:
        raise CaffeError("Need the data: give one of -images FOLDER, -csv FILE, -arrays FILE.npz and -data NAME")
    if flags.group and not (flags.images and not flags.csv):
        raise CaffeError("-group applies to the folders of -images; in a table, a column named group gives the groups")
    made: Any
    if flags.csv:
        made = project.ListSource(flags.csv, flags.images)
    elif flags.data:
        made = project.known_source(flags.data)
    elif flags.arrays:
        made = project.ArraySource.from_npz(flags.arrays)
    else:
        made = project.FolderSource(flags.images, flags.group)
    return made
