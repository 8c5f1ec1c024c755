"""`caffe relabel`."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.errors import CaffeError

_EXAMPLES, _CHANGES = "examples.csv", "changes.csv"


@command(task="data", arguments="FOLDER")
def relabel(flags: SimpleNamespace, display: Display) -> None:
    """Correct the labels of a project after reviewing its worst mistakes.

    FOLDER is the folder that `caffe test -worst N -out FOLDER` wrote. A picture that was moved to the folder of another
    class gets its label. A picture that was deleted is removed from the data. The databases are written again, and
    numbers that depend on the count of pictures are updated in solver.prototxt, train_val.prototxt and README.md,
    except those that you have set yourself. Run the command in the folder of the project. changes.csv lists the
    changes and the original files, which are not modified.

        caffe test -worst 50 -out worst
        caffe relabel worst
    """
    from caffe.evaluation.worst import apply, read_changes
    from caffe.project.refresh import refresh
    from caffe.zoo import ModelFolder

    project = ModelFolder.open(".")
    classes = project.labels()
    if not classes:
        raise CaffeError("there is no labels.txt here; run the command in the folder of a project")
    changes = read_changes(flags.arguments[0], classes)
    if not changes:
        print("nothing to change: every picture is in the folder where it was written")
        return
    before = _counts()
    for change in changes:
        relabelled, removed, left = apply(change, classes)
        _note(Path(change.database).name.removesuffix("_lmdb"), change.labels)
        print(f"{change.database}: {relabelled} relabelled, {removed} removed, {left:,} left")
    if before is not None and (after := _counts()) is not None:
        for line in refresh(Path(), before, after):
            print(line)
    start = f" -weights {project.weights}" if project.trained else ""
    print(f"next: caffe train{start}")


def _counts() -> dict[str, Counter[str]] | None:
    """Count the examples of each class in each part; None without examples.csv."""
    if not Path(_EXAMPLES).is_file():
        return None
    found: dict[str, Counter[str]] = {"train": Counter(), "val": Counter()}
    for row in _rows(_EXAMPLES):
        found[row["split"]][row["label"]] += 1
    return found


def _rows(path: str) -> list[dict[str, str]]:
    from caffe.proto import files

    return list(csv.DictReader(io.StringIO(files.read_bytes(path).decode("utf-8", "surrogateescape"))))


def _note(part: str, labels: dict[str, str | None]) -> None:
    """Bring examples.csv up to date, and add the changes to changes.csv."""
    if not Path(_EXAMPLES).is_file():
        return
    kept, changed = [], []
    for row in _rows(_EXAMPLES):
        if row["split"] != part or row["key"] not in labels:
            kept.append(row)
            continue
        new = labels[row["key"]]
        changed.append({**row, "new": new or ""})
        if new is not None:
            kept.append({**row, "label": new})
    _write(_EXAMPLES, kept, ["key", "file", "label", "split"])
    old = _rows(_CHANGES) if Path(_CHANGES).is_file() else []
    _write(_CHANGES, [*old, *changed], ["key", "file", "label", "split", "new"])


def _write(path: str, rows: list[dict[str, str]], head: list[str]) -> None:
    from caffe.proto import files

    table = io.StringIO()
    writer = csv.DictWriter(table, head, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with files.atomic(path) as file:
        file.write(table.getvalue().encode("utf-8", "surrogateescape"))
