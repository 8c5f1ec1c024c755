"""`caffe convert_imageset`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from caffe import log
from caffe.cli.command import command
from caffe.cli.display import Bar, Display
from caffe.cli.flags import Flag
from caffe.errors import CaffeError, DataError

if TYPE_CHECKING:
    from caffe.data.databases.writer import RecordWriter
    from caffe.data.tools.imageset import ImageSet


def written_backends() -> list[str]:
    """Return the names of the backends that can be written."""
    from caffe.data import WRITERS

    return WRITERS.names()


BACKEND = Flag("backend", "lmdb", "Backend of the database; tar is a folder of shards.", known=written_backends)

IMAGE_FLAGS = [
    Flag("gray", False, "Convert the images to grey."),
    Flag("shuffle", False, "Write the images in random order."),
    BACKEND,
    Flag("resize_width", 0, "Width that images are resized to; requires -resize_height."),
    Flag("resize_height", 0, "Height that images are resized to; requires -resize_width."),
    Flag("check_size", False, "Images whose size differs from the first are an error."),
    Flag("encoded", False, "Store compressed images; files that are not resized are copied unchanged."),
    Flag("strict", False, "Make an unreadable image an error; then no database is written."),
    Flag("encode_type", "", "Format of compressed images: png, jpg, ...; implies -encoded."),
]


@command(*IMAGE_FLAGS, task="convert", arguments="ROOTFOLDER LISTFILE DB_NAME")
def convert_imageset(flags: SimpleNamespace, display: Display) -> None:
    """Convert a list of images to a database of records.

    The Data layer reads the database. Each line of LISTFILE has the name of an image and its label. ROOTFOLDER is
    prepended to the names without a separator, so it must end with "/". An image that cannot be read is reported and
    skipped. If no image can be read, or with -strict, it is an error and no database is written.

        caffe convert_imageset -resize_width=256 -resize_height=256 -shuffle images/ train.txt train_lmdb
    """
    from caffe.data.streams.images import read_image_list
    from caffe.data.tools.imageset import ImageSet

    root, list_file, path = flags.arguments
    check_size_flags(flags)
    lines = shuffled(read_image_list(list_file, labels=True), flags.shuffle)
    log.info("convert_imageset.cpp:89", f"A total of {len(lines)} images.")
    if flags.encode_type and not flags.encoded:
        log.info("convert_imageset.cpp:92", "encode_type specified, assuming encoded=true.")
    encoded = flags.encoded or bool(flags.encode_type)
    images = ImageSet(root, flags.resize_height, flags.resize_width, not flags.gray, encoded, flags.encode_type)
    write_records(images, lines, path, flags, display)


def write_records(
    images: ImageSet, lines: list[tuple[str, Any]], path: str, flags: SimpleNamespace, display: Display
) -> None:
    """Write the images of all lines to a new database, following -backend, -check_size and -strict."""
    from caffe.data import create_database

    with create_database(flags.backend, path) as writer, display.bar(path, len(lines)) as bar:
        _write(images, lines, flags.check_size, writer, bar)
        missing = len(lines) - writer.count
        if missing and flags.strict:
            raise DataError(f"{missing} of {len(lines)} images cannot be read; with -strict no database is written")
    if writer.count % 1000:
        log.info("convert_imageset.cpp:153", f"Processed {writer.count} files.")
    if missing:
        log.warning("convert_imageset.cpp", f"{missing} of {len(lines)} images cannot be read and are left out")
    display.say(f"wrote {path}: {writer.count:,} of {len(lines):,} images")


def check_size_flags(flags: SimpleNamespace) -> None:
    """Raise CaffeError unless both sides are positive or neither is given."""
    for name in ("resize_width", "resize_height"):
        if getattr(flags, name) < 0:
            raise CaffeError(f"-{name} {getattr(flags, name)}: expected a number of pixels, or 0 to keep the size")
    if (flags.resize_width > 0) != (flags.resize_height > 0):
        given, absent = ("width", "height") if flags.resize_width else ("height", "width")
        raise CaffeError(f"-resize_{given} is given without -resize_{absent}: images are resized by both; give both")


def _write(images: ImageSet, lines: list[tuple[str, Any]], check_size: bool, writer: RecordWriter, bar: Bar) -> None:
    """Write the readable images, and log the others. Raises DataError if none is readable."""
    size = 0
    first: DataError | None = None
    for number, record in enumerate(images.records(lines), 1):
        if isinstance(record, DataError):
            first = first or record
            if writer.count:
                _log_unreadable(images, lines[number - 1 : number])
            elif number == len(lines):
                raise DataError(_none_readable(images, lines[0][0], len(lines), first))
        else:
            if not writer.count:
                _log_unreadable(images, lines[: number - 1])
            key, value, values = record
            if check_size and values != (size := size or values):
                fact = f"Incorrect data field size {values} ({values} vs. {size})"
                raise DataError(f'image "{images.root}{lines[number - 1][0]}": {fact}; resize the images')
            writer.put(key, value)
            if writer.count % 1000 == 0:
                log.info("convert_imageset.cpp:147", f"Processed {writer.count} files.")
        bar.update(number)


def _log_unreadable(images: ImageSet, lines: list[tuple[str, Any]]) -> None:
    for name, _ in lines:
        log.error("io.cpp:80", f"Could not open or find file {images.root}{name}")


def _none_readable(images: ImageSet, first: str, count: int, reason: DataError) -> str:
    """Return the message for a list of which no image can be read."""
    root = images.root
    text = f'none of the {count} images can be read; the first, "{root}{first}", {reason}'
    if root and not root.endswith("/"):
        return f'{text}; ROOTFOLDER is prepended to the names without a separator: write "{root}/"'
    return f"{text}; check ROOTFOLDER and the names in the list"


def shuffled(lines: list[tuple[str, Any]], wanted: bool) -> list[tuple[str, Any]]:
    """Return the lines, in random order if asked."""
    if wanted:
        import random

        log.info("convert_imageset.cpp:86", "Shuffling data")
        random.shuffle(lines)
    return lines
