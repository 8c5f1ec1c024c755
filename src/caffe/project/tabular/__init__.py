"""Projects for tables: a fully connected net predicts a class or a number from each row."""

from __future__ import annotations

from caffe.project.tabular.columns import Columns
from caffe.project.tabular.make import TableSettings, make_table
from caffe.project.tabular.predict import TablePredictor
from caffe.project.tabular.table import Table, holds_rows, is_table

__all__ = ["Columns", "Table", "TablePredictor", "TableSettings", "holds_rows", "is_table", "make_table"]
