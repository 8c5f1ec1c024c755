"""Predicts classes with probabilities, or numbers, for the rows of a table, with the net of a project."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from caffe.errors import FileError
from caffe.net import Net
from caffe.project.tabular.columns import CLASSIFY, Columns
from caffe.project.tabular.table import Table
from caffe.proto import files
from caffe.proto.caffe_pb2 import TEST
from caffe.zoo.folder import ModelFolder

__all__ = ["TablePredictor"]

_BATCH = 1000


class TablePredictor:
    """The net of a project for tables, with its weights and columns.

    Raises FileError if the folder is not such a project, or if the weights are missing.
    """

    def __init__(self, folder: ModelFolder, engine: str = "torch") -> None:
        if "columns" not in folder.facts:
            raise FileError(f'"{folder.path}": is not a project for tables; expected "columns:" in its readme')
        self.columns = Columns.read(folder.path / folder.facts["columns"])
        weights = str(folder.weights)
        self.net = Net(str(folder.net), TEST, weights=weights)
        self.net.optimize(engine=engine)

    def predict(self, table: Table) -> np.ndarray:
        """Return the class probabilities of each row, (rows, classes), or the predicted numbers, (rows, 1)."""
        rows = self.columns.inputs(table)
        self.net.blobs[self.net.inputs[0]].reshape(min(_BATCH, len(rows)), rows.shape[1])
        arrays: Any = {self.net.inputs[0]: rows}
        made = self.net.forward_all(**arrays)[self.net.outputs[-1]].reshape(len(table.rows), -1)
        return made if self.columns.task == CLASSIFY else made * self.columns.std + self.columns.mean

    def answers(self, values: np.ndarray) -> list[str]:
        """Return the most probable class, or the predicted number, of each row as text."""
        if self.columns.task == CLASSIFY:
            return [self.columns.classes[index] for index in values.argmax(1)]
        return [f"{value:.6g}" for value in values[:, 0]]

    def write(self, path: str | Path, table: Table, values: np.ndarray) -> None:
        """Write the table with additional columns: the prediction, and the probability of each class."""
        label, classes = self.columns.label, self.columns.classes
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*table.heads, f"{label} (predicted)", *(f"{label}={name}" for name in classes)])
        for cells, answer, row in zip(table.rows, self.answers(values), values, strict=True):
            writer.writerow([*cells, answer, *(f"{value:.6f}" for value in row if classes)])
        with files.atomic(path) as file:
            file.write(text.getvalue().encode("utf-8", "surrogateescape"))
