"""Defaults of train, test and classify in a project folder."""

from __future__ import annotations

import os
from types import SimpleNamespace

from caffe.zoo.folder import ModelFolder

__all__ = ["complete_test", "complete_train", "model_folder"]

_SOLVER = "solver.prototxt"


def complete_train(flags: SimpleNamespace) -> None:
    """Use the solver of the project in the current folder if no solver is given."""
    if not flags.solver and os.path.isfile(_SOLVER) and ModelFolder.is_one("."):
        flags.solver = _SOLVER


def complete_test(flags: SimpleNamespace) -> list[str]:
    """Use net, best weights and number of batches from the project in the current folder if none are given.

    Returns the names of the classes; an empty list outside a project, or if net or weights are given.
    """
    if flags.model or flags.weights or not os.path.isfile("train_val.prototxt"):
        return []
    from caffe.proto import upgrade

    if not ModelFolder.is_one("."):
        return []
    folder = ModelFolder.open(".")
    flags.model, flags.weights = "train_val.prototxt", os.path.relpath(folder.weights)
    if "iterations" not in flags.given and os.path.isfile(_SOLVER):
        tests = upgrade.read_solver(_SOLVER).test_iter
        flags.iterations = tests[0] if tests else flags.iterations
    return folder.labels()


def model_folder(name: str) -> ModelFolder | None:
    """Return a model of the zoo, or the folder of a model; without a name, the current folder if it is a project."""
    if not name:
        return ModelFolder.open(".") if ModelFolder.is_one(".") else None
    from caffe.zoo import index

    return index.find(name)
