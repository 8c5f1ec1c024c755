"""Converts the cells of a table to the inputs of a net, with statistics of the training rows."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from caffe.errors import DataError, FileError
from caffe.project.tabular.table import MISSING, Table
from caffe.proto import files

__all__ = ["CLASSIFY", "REGRESS", "Column", "Columns", "number_of", "task_of"]

CLASSIFY, REGRESS = "classification", "regression"
_MOST_VALUES = 50  # most categories of a column; a column with more contains names or texts
_MOST_CLASSES = 20  # most different numbers in the label for which they are treated as classes
_NUMBERING = ("", "id", "index", "unnamed: 0", "row", "nr", "no")


@dataclass(frozen=True)
class Column:
    """A column of the input.

    A number x becomes (x - mean) / std, and a missing number becomes 0. With `missing`, a second input is 1 if the
    number is missing. A word becomes a one-hot vector over `values`. An unknown or missing word becomes zeros, unless
    `values` contains "", which stands for a missing word.
    """

    name: str
    kind: str
    mean: float = 0.0
    std: float = 1.0
    missing: bool = False
    values: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Number of inputs of the net for this column."""
        return 1 + self.missing if self.kind == "number" else len(self.values)

    def encode(self, cells: Sequence[str], places: Sequence[str]) -> np.ndarray:
        """Convert cells to inputs, (rows, width). Raises DataError for a word in a column of numbers."""
        if self.kind == "category":
            words = [_word(cell) for cell in cells]
            return np.array([[word == value for value in self.values] for word in words], np.float32)
        found = np.array([number_of(cell, place, self.name) for cell, place in zip(cells, places, strict=True)])
        absent = np.isnan(found)
        scaled = np.where(absent, 0, (found - self.mean) / self.std)
        return np.stack([scaled, absent][: self.width], 1).astype(np.float32)


@dataclass
class Columns:
    """The columns of a project: the inputs, and the label with its classes, or with its mean and standard deviation."""

    label: str
    task: str
    columns: list[Column]
    classes: list[str] = field(default_factory=list)
    mean: float = 0.0
    std: float = 1.0

    @property
    def width(self) -> int:
        """Number of inputs of the net."""
        return sum(column.width for column in self.columns)

    def inputs(self, table: Table) -> np.ndarray:
        """Convert the rows to inputs, (rows, width) float32. Raises DataError for a missing column."""
        absent = [column.name for column in self.columns if column.name not in table.heads]
        if absent:
            raise DataError(
                f"{table.path}: has no column {', '.join(absent)}, which the net was trained with "
                f"(it has: {', '.join(table.heads)})"
            )
        places = [table.place(row) for row in range(len(table.rows))]
        return np.concatenate([column.encode(table.column(column.name), places) for column in self.columns], 1)

    def targets(self, table: Table) -> np.ndarray:
        """Return the labels as float32: class indices (rows,), or normalized numbers (rows, 1)."""
        cells = table.column(self.label)
        if self.task == CLASSIFY:
            number = {name: index for index, name in enumerate(self.classes)}
            return np.array([number[cell] for cell in cells], np.float32)
        values = [number_of(cell, table.place(row), self.label) for row, cell in enumerate(cells)]
        return ((np.array(values)[:, None] - self.mean) / self.std).astype(np.float32)

    def unseen(self, table: Table) -> list[str]:
        """Describe the words that do not occur in the training rows, one line per column."""
        told = []
        for column in self.columns:
            if column.kind == "category":
                others = {_word(cell) for cell in table.column(column.name)} - {*column.values, ""}
                if others:
                    told.append(
                        f"{column.name}: {', '.join(sorted(others)[:3])} not in the training rows; their inputs are 0"
                    )
        return told

    def write(self, path: Path) -> None:
        """Write the columns as JSON."""
        with files.atomic(path) as file:
            file.write((json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> Columns:
        """Read what `write` wrote. Raises FileError."""
        try:
            content: dict[str, Any] = json.loads(files.read_bytes(path))
            columns = [Column(**{**each, "values": tuple(each["values"])}) for each in content.pop("columns")]
            return cls(columns=columns, **content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FileError(
                f"{path}: is not a file that `caffe new` wrote: {error!r}; create the project again"
            ) from error

    @classmethod
    def fit(
        cls, table: Table, label: str, task: str, train: Sequence[int], left_out: Sequence[str], notes: list[str]
    ) -> Columns:
        """Determine the columns of a table from its training rows. Messages for the user are added to `notes`."""
        found = cls(label, task, [])
        rows = table.kept(train)
        if task == CLASSIFY:
            found.classes = _in_order(set(rows.column(label)))
        else:
            values = np.array([number_of(cell, rows.place(row), label) for row, cell in enumerate(rows.column(label))])
            found.mean, found.std = float(values.mean()), float(values.std()) or 1.0
        for head in table.heads:
            if head != label and head not in left_out and (column := _column(head, table, rows, notes)):
                found.columns.append(column)
        if not found.columns:
            raise DataError(f"{table.path}: no column is left to learn from, except {label} itself; {'; '.join(notes)}")
        return found


def task_of(cells: Sequence[str]) -> str:
    """Return whether the task is classification: for words and for a few different whole numbers."""
    try:
        values = {number_of(cell, "", "") for cell in cells}
    except DataError:
        return CLASSIFY
    return CLASSIFY if len(values) <= _MOST_CLASSES and all(value == int(value) for value in values) else REGRESS


def number_of(cell: str, place: str, head: str) -> float:
    """Parse the number in a cell; NaN if it is missing. "1,5" is 1.5. Raises DataError for a word and for infinity."""
    text = cell.strip()
    if text.lower() in MISSING:
        return math.nan
    try:
        value = float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except ValueError:
        raise DataError(f'{place}: "{cell}" in the column {head} is not a number') from None
    if math.isinf(value):
        raise DataError(f'{place}: "{cell}" in the column {head} is infinite; give a number, or leave the cell empty')
    return value


def _column(head: str, table: Table, rows: Table, notes: list[str]) -> Column | None:
    """Create the column with this name from the training rows; None, with a note, if it contains no information."""
    cells = [cell for cell in table.column(head) if cell.lower() not in MISSING]
    different = set(cells)
    if not cells or len({cell for cell in rows.column(head) if cell.lower() not in MISSING}) == 0:
        notes.append(f"{head}: is empty, so it is left out")
        return None
    if len(set(map(_word, rows.column(head)))) == 1:
        notes.append(f"{head}: is the same in all training rows, so it is left out")
        return None
    if head.lower() in _NUMBERING and len(different) == len(table.rows):
        notes.append(f"{head}: numbers the rows, so it is left out")
        return None
    words = [cell for cell in cells if not _reads_as_number(cell)]
    if words and len(words) < 0.05 * len(cells) and len(cells) >= 20:
        row = next(row for row, cell in enumerate(table.column(head)) if cell == words[0])
        raise DataError(
            f'{table.place(row)}: "{words[0]}" in the column {head}, whose other cells are numbers; correct it or '
            f"leave the column out with -drop {head}"
        )
    return _words(head, rows, different, notes) if words else _numbers(head, rows, notes)


def _numbers(head: str, rows: Table, notes: list[str]) -> Column:
    values = np.array([number_of(cell, rows.place(row), head) for row, cell in enumerate(rows.column(head))])
    absent = int(np.isnan(values).sum())
    if absent:
        notes.append(
            f"{head}: missing in {absent} training rows; the mean replaces it, and an extra input marks these rows"
        )
    return Column(head, "number", float(np.nanmean(values)), float(np.nanstd(values)) or 1.0, absent > 0)


def _words(head: str, rows: Table, different: set[str], notes: list[str]) -> Column | None:
    if len(different) > _MOST_VALUES:
        notes.append(f"{head}: has {len(different)} different texts, so it is left out")
        return None
    counts = Counter(map(_word, rows.column(head)))
    if counts[""]:
        notes.append(f"{head}: missing in {counts['']} training rows; a missing cell is a category")
    return Column(head, "category", values=tuple(_in_order(set(counts))))


def _word(cell: str) -> str:
    """Return a cell as a category; "" stands for a missing cell."""
    return "" if cell.lower() in MISSING else cell


def _reads_as_number(cell: str) -> bool:
    try:
        number_of(cell, "", "")
    except DataError as error:
        return "infinite" in str(error)
    return True


def _in_order(words: set[str]) -> list[str]:
    """Return the words in order; numerically if all of them are numbers."""
    if all(map(_reads_as_number, words)):
        return sorted(words, key=lambda word: (number_of(word, "", ""), word))
    return sorted(words)
