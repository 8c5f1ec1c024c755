"""Defaults of train, test and classify in a project folder."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

from caffe.zoo.folder import ModelFolder

if TYPE_CHECKING:
    from caffe.project.tabular.columns import Columns

__all__ = ["complete_test", "complete_train", "model_folder"]

_SOLVER = "solver.prototxt"


def complete_train(flags: SimpleNamespace) -> None:
    """Use the solver of the project in the current folder if no solver is given."""
    if not flags.solver and os.path.isfile(_SOLVER) and ModelFolder.is_one("."):
        flags.solver = _SOLVER


def complete_test(flags: SimpleNamespace) -> tuple[list[str], Columns | None]:
    """Use net, best weights and number of batches from the project in the current folder if none are given.

    Returns the names of the classes, and the columns of a table whose label is a number. Outside a project, or if net
    or weights are given, these are an empty list and None.
    """
    if flags.model or flags.weights or not os.path.isfile("train_val.prototxt"):
        return [], None
    from caffe.proto import upgrade

    if not ModelFolder.is_one("."):
        return [], None
    folder = ModelFolder.open(".")
    flags.model, flags.weights = "train_val.prototxt", os.path.relpath(folder.weights)
    if "iterations" not in flags.given and os.path.isfile(_SOLVER):
        tests = upgrade.read_solver(_SOLVER).test_iter
        flags.iterations = tests[0] if tests else flags.iterations
    return folder.labels(), _numbers(folder)


def _numbers(folder: ModelFolder) -> Columns | None:
    """The columns of a table's project whose label is a number."""
    if "columns" not in folder.facts:
        return None
    from caffe.project.tabular.columns import REGRESS, Columns

    columns = Columns.read(folder.path / folder.facts["columns"])
    return columns if columns.task == REGRESS else None


def model_folder(name: str) -> ModelFolder | None:
    """Return a model of the zoo, or the folder of a model; without a name, the current folder if it is a project."""
    if not name:
        return ModelFolder.open(".") if ModelFolder.is_one(".") else None
    from caffe.zoo import index

    return index.find(name)
