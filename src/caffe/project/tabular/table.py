"""Tables: a line of column names, then rows of cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from caffe.data.streams.arrays import read_npz
from caffe.errors import DataError, FileError, did_you_mean
from caffe.project.sources import names_part, pair_of, picture_columns, read_table

__all__ = ["MISSING", "Table", "holds_rows", "is_table"]

MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "?", "-"))
"""Cells, in lower case, that mean a missing value."""
_LABELS = ("label", "class", "category", "target", "y", "species", "outcome")
_SPLITS = ("split", "part", "set", "subset")


@dataclass
class Table:
    """Column names and rows of cells, as text. `lines` contains the line number of each row in the file."""

    path: str
    heads: list[str]
    rows: list[list[str]]
    lines: list[int] = field(default_factory=list)

    @classmethod
    def read(cls, path: str | Path) -> Table:
        """Read a CSV file with , ; or tabs as separators. Raises FileError if a row does not match the column names."""
        (line, heads), *body = read_table(path)
        heads = [head.strip() for head in heads]
        if all(_is_number(cell) for cell in heads):
            raise FileError(f"{path}:{line}: is a line of numbers; expected the names of the columns in the first line")
        twice = {head for head in heads if heads.count(head) > 1}
        if twice:
            raise FileError(f'{path}:{line}: two columns are called "{min(twice)}"; give them different names')
        for line, cells in body:
            if len(cells) != len(heads):
                raise FileError(f"{path}:{line}: has {len(cells)} cells, the first line has {len(heads)}")
        if not body:
            raise FileError(f"{path}: has no rows below the names of its columns")
        rows = [[cell.strip() for cell in cells] for _, cells in body]
        return cls(str(path), heads, rows, [line for line, _ in body])

    @classmethod
    def of_arrays(cls, path: str) -> Table:
        """Read the table of an .npz file with the arrays x (rows, columns) and y (rows)."""
        rows, labels = (np.asarray(each) for each in read_npz(path, list(pair_of(path))))
        if rows.ndim != 2 or not rows.size:
            raise DataError(f'"{path}": the rows have the shape {rows.shape}; expected (rows, columns)')
        if labels.size != len(rows):
            raise DataError(
                f'"{path}" has {len(rows)} rows and labels of the shape {labels.shape}; expected one per row'
            )
        if np.array_equal(labels, np.rint(labels)):  # classes, as floats
            labels = labels.astype(np.int64)
        heads = [*(f"x{index}" for index in range(rows.shape[1])), "y"]
        cells = [
            [*map(str, row), str(label)] for row, label in zip(rows.tolist(), labels.ravel().tolist(), strict=True)
        ]
        return cls(path, heads, cells, list(range(len(cells))))

    def place(self, row: int) -> str:
        """The file and line of a row, for messages."""
        return f"{self.path}:{self.lines[row]}"

    def column(self, head: str) -> list[str]:
        """The cells of a column."""
        number = self.heads.index(head)
        return [row[number] for row in self.rows]

    def known(self, head: str, flag: str) -> str:
        """Return the name if a column has it; raises DataError otherwise."""
        if head in self.heads:
            return head
        hint = did_you_mean(head, self.heads)
        raise DataError(f'{flag} "{head}": {self.path} has no such column{hint} (it has: {", ".join(self.heads)})')

    def label(self, wanted: str) -> str:
        """Return the name of the column to predict: the requested one, or a column with a usual name."""
        if wanted:
            return self.known(wanted, "-label")
        usual = [head for name in _LABELS for head in self.heads if head.lower() == name]
        if usual:
            return usual[0]
        raise DataError(
            f"{self.path}: which column is to be predicted? Give it with -label NAME (columns: {', '.join(self.heads)})"
        )

    def parts(self) -> tuple[str, list[str]]:
        """Return the name of the column with the parts, and the part of each row; ("", []) without such a column."""
        for head in self.heads:
            cells = self.column(head) if head.lower() in _SPLITS else []
            if cells and all(names_part(cell) for cell in cells):
                return head, [names_part(cell) for cell in cells]
        return "", []

    def kept(self, rows: Sequence[int]) -> Table:
        """The table of some rows."""
        return Table(self.path, self.heads, [self.rows[row] for row in rows], [self.lines[row] for row in rows])


def is_table(path: str | Path, label: str = "") -> bool:
    """Whether a CSV file is a table of values, and not a list of pictures with columns for files and labels."""
    if label:
        return True
    (_, heads), *_ = read_table(path)
    if picture_columns(heads):
        return False
    return len(heads) > 2 or all(_is_number(cell) for cell in heads)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def holds_rows(path: str) -> bool:
    """Whether the examples of an .npz file are rows of numbers, (rows, columns), and not pictures."""
    examples, _ = pair_of(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            return bool(file[examples].ndim == 2)
    except Exception:
        return False  # reading the file as pictures raises the error
