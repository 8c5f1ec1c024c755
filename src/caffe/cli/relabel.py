"""`caffe relabel`."""

from __future__ import annotations

import csv
import io
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
    class gets its label. A picture that was deleted is removed from the data. The databases are written again. Run the
    command in the folder of the project. changes.csv lists the changes and the original files, which are not modified.

        caffe test -worst 50 -out worst
        caffe relabel worst
    """
    from caffe.evaluation.worst import apply, read_changes
    from caffe.zoo import ModelFolder

    project = ModelFolder.open(".")
    classes = project.labels()
    if not classes:
        raise CaffeError("there is no labels.txt here; run the command in the folder of a project")
    changes = read_changes(flags.arguments[0], classes)
    if not changes:
        print("nothing to change: every picture is in the folder where it was written")
        return
    for change in changes:
        relabelled, removed, left = apply(change, classes)
        _note(Path(change.database).name.removesuffix("_lmdb"), change.labels)
        print(f"{change.database}: {relabelled} relabelled, {removed} removed, {left:,} left")
    start = f" -weights {project.weights}" if project.trained else ""
    print(f"next: caffe train{start}")


def _note(part: str, labels: dict[str, str | None]) -> None:
    """Update examples.csv, and add the changes to changes.csv."""
    from caffe.proto import files

    if not Path(_EXAMPLES).is_file():
        return
    text = files.read_bytes(_EXAMPLES).decode("utf-8", "surrogateescape")
    rows = list(csv.DictReader(io.StringIO(text)))
    kept, changed = [], []
    for row in rows:
        if row["split"] != part or row["key"] not in labels:
            kept.append(row)
            continue
        new = labels[row["key"]]
        changed.append({**row, "new": new or ""})
        if new is not None:
            kept.append({**row, "label": new})
    _write(_EXAMPLES, kept, ["key", "file", "label", "split"])
    old = files.read_bytes(_CHANGES).decode("utf-8", "surrogateescape") if Path(_CHANGES).is_file() else ""
    _write(_CHANGES, [*csv.DictReader(io.StringIO(old)), *changed], ["key", "file", "label", "split", "new"])


def _write(path: str, rows: list[dict[str, str]], head: list[str]) -> None:
    from caffe.proto import files

    table = io.StringIO()
    writer = csv.DictWriter(table, head, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with files.atomic(path) as file:
        file.write(table.getvalue().encode("utf-8", "surrogateescape"))
