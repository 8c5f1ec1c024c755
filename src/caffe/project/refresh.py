"""Brings a project's files up to date when its databases have more or fewer records than before."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from caffe.project.plan import fitting_batch
from caffe.proto import files, upgrade
from caffe.proto.caffe_pb2 import TRAIN

__all__ = ["Counts", "refresh"]

Counts = Mapping[str, Counter[str]]
"""How many examples each class has, by part ("train", "val")."""


def refresh(folder: Path, before: Counts, after: Counts) -> list[str]:
    """Change what follows from the number of records in solver.prototxt, train_val.prototxt and README.md.

    These are the batches of a test, and the iterations of an epoch: test_interval, max_iter, snapshot and display.
    Numbers that people have changed stay, as do all other lines. The mean stays, too: weights need the one that they
    were trained with. Returns a line for each change, and one for each class that has no training examples now.
    """
    told: list[str] = []
    net, solver, readme = (folder / name for name in ("train_val.prototxt", "solver.prototxt", "README.md"))
    sizes = {part: (sum(before[part].values()), sum(after[part].values())) for part in ("train", "val")}
    batches = _batches(net)
    if all(path.is_file() for path in (net, solver)) and set(batches) == {"train", "val"}:
        test_batch = _changed_batch(batches["val"], *sizes["val"])
        _edit(net, list(_net_edits(batches, test_batch, sizes)), told)
        _edit(solver, list(_solver_edits(upgrade.read_solver(str(solver)), batches, test_batch, sizes)), told)
    if readme.is_file():
        rows = [
            (rf"(?m)^\| {re.escape(label)} \| [\d,]+ \| [\d,]+ \|$", _literal(f"| {label} | {train:,} | {val:,} |"), "")
            for label in {**before["train"], **before["val"], **after["train"], **after["val"]}
            for train, val in [(after["train"][label], after["val"][label])]
        ]
        _edit(readme, rows, told)
    empty = [label for label, count in before["train"].items() if count and not after["train"][label]]
    told += [f"{label}: no pictures are left to train on" for label in empty]
    return told


def _batches(net: Path) -> dict[str, int]:
    """Return the batch size of the data layer of each part."""
    found = {}
    for layer in upgrade.read_net(str(net)).layer if net.is_file() else ():
        if layer.HasField("data_param") and layer.include:
            found["train" if layer.include[0].phase == TRAIN else "val"] = layer.data_param.batch_size
    return found


def _changed_batch(batch: int, old: int, new: int) -> int:
    """Return the batch size of a test: the size in the file if the user chose it, else one for the new number."""
    return fitting_batch(new) if batch == fitting_batch(old) else batch


Edit = tuple[str, str, str]
"""A pattern, the replacement of its match, and the message about the change."""


def _net_edits(batches: Mapping[str, int], test_batch: int, sizes: Mapping[str, tuple[int, int]]) -> Iterator[Edit]:
    for part, batch in (("train", batches["train"]), ("val", test_batch)):
        old, new = sizes[part]
        yield rf'(source: "{part}_lmdb"  # ){old:,} pictures', rf"\g<1>{new:,} pictures", ""
        steps = math.ceil(new / batch)
        place = rf'("{part}_lmdb"[^}}]*?batch_size: ){batches[part]}(  # )\d+ batches are all pictures'
        yield place, rf"\g<1>{batch}\g<2>{steps} batches are all pictures", ""
    old_batch = batches["val"]
    if test_batch != old_batch:
        yield rf'("val_lmdb"[^}}]*?batch_size: ){old_batch}\b', rf"\g<1>{test_batch}", ""


def _solver_edits(
    solver: Any, batches: Mapping[str, int], test_batch: int, sizes: Mapping[str, tuple[int, int]]
) -> Iterator[Edit]:
    old_val, new_val = sizes["val"]
    old_train, new_train = sizes["train"]
    was, now = math.ceil(old_val / batches["val"]), math.ceil(new_val / test_batch)
    yield rf"(?m)^(test_iter:\s*){was}\b", rf"\g<1>{now}", f"test_iter: {was} -> {now}" if was != now else ""
    yield rf"all {old_val:,} validation", f"all {new_val:,} validation", ""
    each, fresh = (math.ceil(count / batches["train"]) for count in (old_train, new_train))
    yield rf"\({old_train:,} pictures /", f"({new_train:,} pictures /", ""
    if each == fresh:
        return
    for name in ("test_interval", "max_iter", "snapshot"):
        value = getattr(solver, name)
        if value and value % each == 0:
            new = value // each * fresh
            yield rf"(?m)^({name}:\s*){value}\b", rf"\g<1>{new}", f"{name}: {value} -> {new}"
    display = max(1, each // 2)
    yield rf"(?m)^(display:\s*){display}\b", rf"\g<1>{max(1, fresh // 2)}", ""
    yield rf"epochs of {each} iterations", f"epochs of {fresh} iterations", ""


def _literal(text: str) -> str:
    """Escape the backslashes of a replacement."""
    return text.replace("\\", "\\\\")


def _edit(path: Path, edits: list[Edit], told: list[str]) -> None:
    """Replace the first match of each pattern, and write the file if it has changed."""
    before = text = files.read_bytes(path).decode("utf-8", "surrogateescape")
    for pattern, new, fact in edits:
        text, count = re.subn(pattern, new, text, count=1)
        if count and fact:
            told.append(f"{path.name}: {fact}")
    if text != before:
        with files.atomic(path) as file:
            file.write(text.encode("utf-8", "surrogateescape"))
