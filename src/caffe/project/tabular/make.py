"""Makes a project from a table: HDF5 files, nets, solver and README, ready for `caffe train`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py

from caffe.data.pipeline.rng import generator
from caffe.errors import ArgumentError, DataError
from caffe.net import Net
from caffe.project.make import refuse_present, unfinished
from caffe.project.sources import TRAIN, VAL
from caffe.project.tabular.columns import CLASSIFY, REGRESS, Columns, task_of
from caffe.project.tabular.table import MISSING, Table
from caffe.project.tabular.texts import TablePlan, net, readme, solver
from caffe.proto import files
from caffe.proto.caffe_pb2 import TEST, NetParameter
from caffe.proto.text import parse

__all__ = ["TableSettings", "make_table"]


@dataclass(frozen=True)
class TableSettings:
    """The user's settings; "" and 0 mean an automatic choice."""

    label: str = ""
    task: str = ""
    drop: tuple[str, ...] = ()
    val: int = 20
    seed: int = 1
    batch: int = 0
    epochs: int = 0


def make_table(folder: str | Path, table: Table, settings: TableSettings) -> tuple[TablePlan, list[str]]:
    """Write a project for the rows of a table; returns its plan and notes about the data.

    On an error, nothing remains on disk. Raises FileError if the folder is not empty, and DataError for tables that
    cannot be used for training.
    """
    top = Path(folder)
    refuse_present(top)
    notes: list[str] = []
    label = table.label(settings.label)
    for name in settings.drop:
        table.known(name, "-drop")
    table = _labelled(table, label, notes)
    task = _task(settings.task, table.column(label))
    split_head, parts = table.parts()
    train, val = _divided(table, label, task, settings, parts, notes)
    out = (*settings.drop, *([split_head] if split_head else []))
    columns = Columns.fit(table, label, task, train, out, notes)
    val = _known_classes(table, columns, val, notes)
    name = re.sub(r"[^\w.-]+", "_", top.resolve().name)
    plan = TablePlan(name, columns, len(train), len(val), settings.batch, settings.epochs)
    with unfinished(top) as made:
        for part, rows in ((TRAIN, train), (VAL, val)):
            _write_rows(made / f"{part}.h5", columns, table.kept(rows))
            (made / f"{part}_files.txt").write_text(f"{part}.h5\n")
        _write_files(made, plan, notes)
        Net(parse((made / "deploy.prototxt").read_text(), NetParameter(), "deploy.prototxt"), TEST)
    return plan, notes


def _labelled(table: Table, label: str, notes: list[str]) -> Table:
    """Return the rows that have a label."""
    rows = [row for row, cell in enumerate(table.column(label)) if cell.lower() not in MISSING]
    if len(rows) < len(table.rows):
        notes.append(f"{len(table.rows) - len(rows)} rows have no {label}; they are left out")
    if len(rows) < 4:
        raise DataError(f"{table.path}: {len(rows)} rows have a {label}; expected 4 or more")
    return table.kept(rows)


def _task(wanted: str, labels: Sequence[str]) -> str:
    if wanted not in ("", CLASSIFY, REGRESS):
        raise ArgumentError(f"-task {wanted}: expected {CLASSIFY} or {REGRESS}")
    task = wanted or task_of(labels)
    if task == CLASSIFY and len(set(labels)) < 2:
        raise DataError(f'there is one class, "{labels[0]}"; a classifier needs two or more')
    return task


def _divided(
    table: Table, label: str, task: str, settings: TableSettings, parts: list[str], notes: list[str]
) -> tuple[list[int], list[int]]:
    """Return the indices of the training rows, in random order, and of the validation rows.

    If a column names the part of each row, this column is used. Otherwise `val` percent of each class are validation
    rows. Equal rows are kept in one part.
    """
    if parts:
        train = [row for row, part in enumerate(parts) if part == TRAIN]
        val = [row for row, part in enumerate(parts) if part == VAL]
    else:
        if not 1 <= settings.val <= 90:
            raise DataError(f"-val {settings.val}: expected the percentage of validation rows, 1 to 90")
        train, val = _drawn(table, label if task == CLASSIFY else "", settings, notes)
    if not train or not val:
        raise DataError(f"{table.path}: no rows are left to {'validate with' if train else 'train on'}")
    order = generator(settings.seed, 1 << 40).permutation(len(train))
    return [train[index] for index in order], val


def _drawn(table: Table, label: str, settings: TableSettings, notes: list[str]) -> tuple[list[int], list[int]]:
    same: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row, cells in enumerate(table.rows):
        same[tuple(cells)].append(row)
    if len(same) < len(table.rows):
        notes.append(f"{len(table.rows) - len(same)} rows are copies of others; copies stay in one part")
    kinds: dict[str, list[list[int]]] = defaultdict(list)
    for group in same.values():
        kinds[table.column(label)[group[0]] if label else ""].append(group)
    train: list[int] = []
    val: list[int] = []
    for number, kind in enumerate(sorted(kinds)):
        groups = kinds[kind]
        wanted = max(1, round(sum(map(len, groups)) * settings.val / 100))
        order = generator(settings.seed, number).permutation(len(groups))
        taken: set[int] = set()
        for index in order[: len(groups) - 1]:
            if sum(len(groups[each]) for each in taken) >= wanted:
                break
            taken.add(int(index))
        for index, group in enumerate(groups):
            (val if index in taken else train).extend(group)
        if not taken:
            notes.append(f"{kind}: too few rows for validation; all of them are used for training")
    return train, sorted(val)


def _known_classes(table: Table, columns: Columns, val: list[int], notes: list[str]) -> list[int]:
    """Return the validation rows whose class occurs in the training rows."""
    if columns.task == REGRESS:
        return val
    cells = table.column(columns.label)
    kept = [row for row in val if cells[row] in columns.classes]
    if len(kept) < len(val):
        others = sorted({cells[row] for row in val} - set(columns.classes))
        notes.append(f"{', '.join(others[:5])}: only in the validation rows, so {len(val) - len(kept)} are left out")
    if not kept:
        raise DataError(f"{table.path}: no validation row has a class of the training rows")
    return kept


def _write_rows(path: Path, columns: Columns, table: Table) -> None:
    with h5py.File(path, "w") as file:
        file["data"] = columns.inputs(table)
        file["label"] = columns.targets(table)


def _write_files(made: Path, plan: TablePlan, notes: Sequence[str]) -> None:
    facts = {
        "name": plan.name,
        "net": "deploy.prototxt",
        "snapshot_prefix": f"snapshots/{plan.name}",
        "columns": "columns.json",
    }
    contents = {
        "train_val.prototxt": net(plan, deploy=False),
        "deploy.prototxt": net(plan, deploy=True),
        "solver.prototxt": solver(plan),
    }
    if plan.classifies:
        facts["labels"] = "labels.txt"
        contents["labels.txt"] = "".join(f"{name}\n" for name in plan.columns.classes)
    contents["README.md"] = readme(plan, facts, notes)
    for name, text in contents.items():
        with files.atomic(made / name) as file:
            file.write(text.encode("utf-8", "surrogateescape"))
    plan.columns.write(made / "columns.json")
    (made / "snapshots").mkdir()
