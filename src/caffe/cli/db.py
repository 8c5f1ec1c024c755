"""`caffe db`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag
from caffe.cli.plot import OUT
from caffe.errors import CaffeError, DataError, did_you_mean

if TYPE_CHECKING:
    from caffe.data import RecordSource

_MOST = 12  # most lines of a histogram or of damaged records
COUNT = Flag("count", 64, "Number of images in the picture.")


@command(OUT, COUNT, task="data", arguments="info|show|export|verify PATH")
def db(flags: SimpleNamespace, display: Display) -> int:
    """Inspect a database of records: LMDB, LevelDB or tar shards.

    info     prints the number of records, their sizes and labels
    show     draws the first images, with boxes if there are any, to -out (default: the database's name with .png)
    export   writes each image to a file in the new folder -out, with a list.txt for convert_imageset
             (boxes to text files: convert_annoset -anno_type=detection -label_type=txt)
    verify   reads and decodes every record and lists damaged ones; the exit code is 1 if there are any

        caffe db show train_lmdb -o first.png
    """
    action, path = flags.arguments
    actions = {"info": _info, "show": _show, "export": _export, "verify": _verify}
    if action not in actions:
        raise CaffeError(f'unknown action "{action}"{did_you_mean(action, actions)} (known: {", ".join(actions)})')
    from caffe.data.tools.inspect import detect

    source = detect(path)
    try:
        return actions[action](source, flags, display)
    finally:
        source.close()


def _info(source: RecordSource, flags: SimpleNamespace, display: Display) -> int:
    from caffe.data.databases.base import show_key
    from caffe.data.tools.inspect import survey

    with display.bar(source.path, source.count()) as bar:
        found = survey(source, bar.update)
    print(f"{source.path}: {source.backend}, {found.count:,} records, {found.size:,} bytes")
    print(f"keys     {show_key(found.keys[0])} to {show_key(found.keys[1])}")
    print(f"stored   {_counts(found.kinds)}")
    print(f"shapes   {_counts(Counter({' x '.join(map(str, key)): n for key, n in found.shapes.items()}))}")
    print(f"labels   {len(found.labels)} different")
    widest = max(found.labels.values(), default=1)
    for label, count in sorted(found.labels.items())[:_MOST]:
        print(f"  {label:6d} {count:10,}  {'#' * max(1, round(40 * count / widest))}")
    if len(found.labels) > _MOST:
        print(f"  ... and {len(found.labels) - _MOST} more, the largest label {max(found.labels)}")
    if found.damaged:
        print(f"damaged  {len(found.damaged):,}: see caffe db verify {source.path}")
    return 0


def _show(source: RecordSource, flags: SimpleNamespace, display: Display) -> int:
    from caffe.data.tools.inspect import entries
    from caffe.pictures.boxes import shown
    from caffe.pictures.grid import grid, write_picture

    if flags.count < 1:
        raise CaffeError(f"-count {flags.count}: expected at least 1")
    out = flags.out or f"{source.path.rstrip('/')}.png"
    found = [entry for entry in entries(source, flags.count) if entry.image is not None]
    if not found:
        raise DataError(f'"{source.path}": none of the first {flags.count} records is an image')
    pictures = [shown(entry.image, entry.label) for entry in found if entry.image is not None]
    write_picture(out, grid(pictures, [" ".join(map(str, entry.labels)) for entry in found]))
    print(f"wrote {out}: {len(found)} images")
    return 0


def _export(source: RecordSource, flags: SimpleNamespace, display: Display) -> int:
    from caffe.data.tools.inspect import export

    if not flags.out:
        raise CaffeError("the output folder is missing: give it with -out FOLDER")
    with display.bar(source.path, source.count()) as bar:
        count = export(source, Path(flags.out), bar.update)
    print(f"wrote {flags.out}: {count:,} images and list.txt")
    return 0


def _verify(source: RecordSource, flags: SimpleNamespace, display: Display) -> int:
    from caffe.data.tools.inspect import survey

    with display.bar(source.path, source.count()) as bar:
        found = survey(source, bar.update)
    for text in found.damaged[:_MOST]:
        print(text)
    if len(found.damaged) > _MOST:
        print(f"... and {len(found.damaged) - _MOST:,} more")
    print(
        f"{source.path}: {found.count:,} records, {len(found.damaged):,} damaged, {len(found.shapes)} different shapes"
    )
    return 1 if found.damaged else 0


def _counts(counter: Counter[str]) -> str:
    """Format a counter: `3 x 5 x 7 (12), ...`, most frequent first."""
    shown = ", ".join(f"{name} ({count:,})" for name, count in counter.most_common(_MOST))
    return shown + (f", and {len(counter) - _MOST} more" if len(counter) > _MOST else "")
