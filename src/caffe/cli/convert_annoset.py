"""`caffe convert_annoset`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from caffe import log
from caffe.cli.command import command
from caffe.cli.convert_imageset import IMAGE_FLAGS, check_size_flags, shuffled, write_records
from caffe.cli.display import Display
from caffe.cli.flags import Flag
from caffe.errors import CaffeError, did_you_mean

if TYPE_CHECKING:
    from caffe.data.tools.imageset import ImageSet

_FLAGS = [
    *IMAGE_FLAGS,
    Flag(
        "anno_type",
        "classification",
        "Annotation of each image in the list: classification (a label) or detection (a box file).",
    ),
    Flag("label_type", "xml", "Format of the box files: xml (VOC), json (COCO) or txt (label xmin ymin xmax ymax)."),
    Flag("label_map_file", "", "LabelMap file with the label of each name; not needed for txt."),
    Flag("check_label", False, "A name that occurs twice in the label map is an error."),
    Flag("min_dim", 0, "Enlarge images whose shorter side is smaller than this, keeping the aspect ratio."),
    Flag("max_dim", 0, "Reduce images whose longer side is larger than this, keeping the aspect ratio."),
]


@command(*_FLAGS, task="convert", arguments="ROOTFOLDER LISTFILE DB_NAME")
def convert_annoset(flags: SimpleNamespace, display: Display) -> None:
    """Convert images with bounding boxes to a database of records.

    The AnnotatedData layer reads the database. Each line of LISTFILE has the name of an image and the name of the file
    with its boxes. ROOTFOLDER is prepended to both without a separator, so it must end with "/". With -label_type=json
    LISTFILE may also be a COCO file with the boxes of all images (instances_val2017.json). An image that cannot be read
    is reported and skipped; with -strict it is an error.

        caffe convert_annoset -anno_type=detection -label_map_file=labelmap.prototxt -encoded VOC/ train.txt train_lmdb
    """
    root, list_file, path = flags.arguments
    check_size_flags(flags)
    for name in ("min_dim", "max_dim"):
        if getattr(flags, name) < 0:
            raise CaffeError(f"-{name} {getattr(flags, name)}: expected a number of pixels, or 0")
    lines, images = _detection(flags, root, list_file) if _detects(flags) else _classification(flags, root, list_file)
    if flags.encode_type and not flags.encoded:
        log.info("convert_annoset.cpp:119", "encode_type specified, assuming encoded=true.")
    write_records(images, shuffled(lines, flags.shuffle), path, flags, display)


def _detects(flags: SimpleNamespace) -> bool:
    kinds = ("classification", "detection")
    if flags.anno_type not in kinds:
        hint = did_you_mean(flags.anno_type, kinds)
        raise CaffeError(f'-anno_type "{flags.anno_type}"{hint}: expected {" or ".join(kinds)}')
    return flags.anno_type == "detection"


def _classification(flags: SimpleNamespace, root: str, list_file: str) -> tuple[list[Any], ImageSet]:
    from caffe.data.streams.images import read_image_list
    from caffe.data.tools.annoset import ClassifiedSet

    return read_image_list(list_file, labels=True), ClassifiedSet(**_options(flags, root))


def _detection(flags: SimpleNamespace, root: str, list_file: str) -> tuple[list[Any], ImageSet]:
    from caffe.data.tools.annoset import LABEL_TYPES, AnnotatedSet, read_coco, read_label_map, read_lines, reader

    kind = flags.label_type
    if kind not in LABEL_TYPES:
        raise CaffeError(f'-label_type "{kind}"{did_you_mean(kind, LABEL_TYPES)}: expected {", ".join(LABEL_TYPES)}')
    names = read_label_map(flags.label_map_file, flags.check_label) if flags.label_map_file else None
    if kind == "json" and list_file.endswith(".json"):
        lines, labels = read_coco(list_file, names)
    elif names is None and kind != "txt":
        raise CaffeError(f"-label_type {kind} needs -label_map_file with the label of each name")
    else:
        lines, labels = read_lines(list_file), reader(kind, root, names or {})
    return lines, AnnotatedSet(**_options(flags, root), labels=labels)


def _options(flags: SimpleNamespace, root: str) -> dict[str, Any]:
    return {
        "root": root,
        "height": flags.resize_height,
        "width": flags.resize_width,
        "color": not flags.gray,
        "encoded": flags.encoded or bool(flags.encode_type),
        "encode_type": flags.encode_type,
        "min_dim": flags.min_dim,
        "max_dim": flags.max_dim,
    }
