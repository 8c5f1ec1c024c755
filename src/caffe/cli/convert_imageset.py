"""`caffe convert_imageset`."""

from __future__ import annotations

from types import SimpleNamespace

from caffe import log
from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag
from caffe.errors import DataError

BACKEND = Flag("backend", "lmdb", "Kind of the database: lmdb or leveldb.")

_FLAGS = [
    Flag("gray", False, "Read the images as grey ones."),
    Flag("shuffle", False, "Write the images in random order."),
    BACKEND,
    Flag("resize_width", 0, "Width that images are resized to; together with -resize_height."),
    Flag("resize_height", 0, "Height that images are resized to; together with -resize_width."),
    Flag("check_size", False, "An image of another size than the first is an error."),
    Flag("encoded", False, "Store images compressed: the files as they are, if they are not resized."),
    Flag("encode_type", "", "Compress the images as this: png, jpg, ...; implies -encoded."),
]


@command(*_FLAGS, arguments="ROOTFOLDER LISTFILE DB_NAME")
def convert_imageset(flags: SimpleNamespace, display: Display) -> None:
    """Convert a list of images to a database of records.

    The layer Data reads the database. Each line of LISTFILE is the name of an image and its label; ROOTFOLDER, with
    its "/", is put before the names. An image that cannot be read is told and left out.

        caffe convert_imageset -resize_width=256 -resize_height=256 -shuffle images/ train.txt train_lmdb
    """
    from caffe.data import create_database
    from caffe.data.images import read_image_list
    from caffe.data.imageset import ImageSet

    root, list_file, path = flags.arguments
    lines = _shuffled(read_image_list(list_file), flags.shuffle)
    log.info("convert_imageset.cpp:89", f"A total of {len(lines)} images.")
    if flags.encode_type and not flags.encoded:
        log.info("convert_imageset.cpp:92", "encode_type specified, assuming encoded=true.")
    if (flags.resize_width > 0) != (flags.resize_height > 0):
        log.warning("convert_imageset.cpp", "images are not resized: give both -resize_width and -resize_height")
    encoded = flags.encoded or bool(flags.encode_type)
    images = ImageSet(root, flags.resize_height, flags.resize_width, not flags.gray, encoded, flags.encode_type)
    size = 0
    with create_database(flags.backend, path) as writer, display.bar(path, len(lines)) as bar:
        for number, record in enumerate(images.records(lines), 1):
            if record is not None:
                key, value, values = record
                if flags.check_size and values != (size := size or values):
                    fact = f"Incorrect data field size {values} ({values} vs. {size})"
                    raise DataError(f'image "{root}{lines[number - 1][0]}": {fact}; resize the images')
                writer.put(key, value)
                if writer.count % 1000 == 0:
                    log.info("convert_imageset.cpp:147", f"Processed {writer.count} files.")
            bar.update(number)
    if writer.count % 1000:
        log.info("convert_imageset.cpp:153", f"Processed {writer.count} files.")
    display.say(f"wrote {path}: {writer.count:,} of {len(lines):,} images")


def _shuffled(lines: list[tuple[str, int]], wanted: bool) -> list[tuple[str, int]]:
    if wanted:
        import random

        log.info("convert_imageset.cpp:86", "Shuffling data")
        random.shuffle(lines)
    return lines
