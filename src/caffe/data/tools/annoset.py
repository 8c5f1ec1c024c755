"""Converts images with object boxes to AnnotatedDatum records, as convert_annoset does."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from caffe import log
from caffe.data.databases.annotated import encode_boxes
from caffe.data.streams.images import read_image
from caffe.data.tools.imageset import ImageSet, Line
from caffe.errors import DataError, FileError, did_you_mean
from caffe.opencv import cv2
from caffe.proto import files, text
from caffe.proto.caffe_pb2 import AnnotatedDatum, Datum, LabelMap

__all__ = ["LABEL_TYPES", "AnnotatedSet", "ClassifiedSet", "read_coco", "read_label_map", "read_lines", "reader"]

Names = dict[str, int]
Row = tuple[int, float, float, float, float, bool]
"""Label, xmin, ymin, xmax, ymax in pixels, difficult."""
Found = tuple[list[Row], tuple[int, int]]
"""The boxes of a file, and the image height and width that the file states (0 if it states none)."""


@dataclass
class AnnotatedSet(ImageSet):
    """Converts images and box files to records.

    `labels` returns the boxes for the label of a line, the name of a box file. With `min_dim`, images whose shorter
    side is smaller are enlarged to it; with `max_dim`, images whose longer side is larger are reduced to it. The aspect
    ratio is kept.
    Source: SSD's convert_annoset.cpp, io.cpp.
    """

    labels: Callable[[str], Found] = field(default=lambda name: ([], (0, 0)))
    min_dim: int = 0
    max_dim: int = 0

    def record(self, line: Line) -> tuple[bytes, bytes, int] | DataError:
        number, name, label = line
        path = self.root + name
        try:
            pixels = read_image(path, self.color)
        except DataError as error:
            return error
        resized = self._resized(pixels)
        datum = self.datum(path, name, resized, resized.shape != pixels.shape)
        value = self._value(datum, label, pixels.shape[:2])
        return os.fsencode(f"{number:08d}_{name}"), value, resized.size

    def _value(self, datum: Datum, label: Any, size: tuple[int, ...]) -> bytes:
        """Return the record of an image of this size."""
        rows, stated = self.labels(label)
        return encode_boxes(datum, normalized(rows, stated, size, label))

    def _resized(self, pixels: np.ndarray) -> np.ndarray:
        if not (self.min_dim or self.max_dim):
            resize = self.height > 0 and self.width > 0
            return cv2.resize(pixels, (self.width, self.height)) if resize else pixels
        least, most = sorted(pixels.shape[:2])
        scale = self.min_dim / least if least < self.min_dim else 1.0
        if self.max_dim and int(scale * most) > self.max_dim:
            scale = self.max_dim / most
        return pixels if scale == 1 else cv2.resize(pixels, (0, 0), fx=scale, fy=scale)


class ClassifiedSet(AnnotatedSet):
    """Converts images and their labels to AnnotatedDatum records without boxes and annotation type."""

    def _value(self, datum: Datum, label: Any, size: tuple[int, ...]) -> bytes:
        datum.label = label
        return AnnotatedDatum(datum=datum).SerializeToString()


def normalized(rows: list[Row], size: tuple[int, int], image: tuple[int, ...], name: str) -> list[tuple[float, ...]]:
    """Convert boxes to fractions of the image, and number the boxes of each label."""
    height, width = size if all(size) else image
    if (height, width) != tuple(image):
        log.warning("io.cpp", f"{name}: the image is {image[1]} x {image[0]}, but the file says {width} x {height}")
    counts: defaultdict[int, int] = defaultdict(int)
    result: list[tuple[float, ...]] = []
    for label, xmin, ymin, xmax, ymax, difficult in rows:
        if xmin < 0 or ymin < 0 or xmax > width or ymax > height:
            log.warning("io.cpp", f"{name}: the box {xmin:g} {ymin:g} {xmax:g} {ymax:g} exceeds the image")
        if xmin > xmax or ymin > ymax:
            log.warning("io.cpp", f"{name}: the corners of the box {xmin:g} {ymin:g} {xmax:g} {ymax:g} are swapped")
        result.append((label, counts[label], xmin / width, ymin / height, xmax / width, ymax / height, difficult))
        counts[label] += 1
    return result


def read_label_map(path: str, check: bool) -> Names:
    """Read a LabelMap in text format as name -> label.

    Raises FileError if it is empty, or with `check` if a name is repeated.
    """
    names: Names = {}
    for item in text.read(path, LabelMap()).item:
        if check and item.name in names:
            raise FileError(f'label map "{path}": the name "{item.name}" occurs twice; remove one')
        names[item.name] = item.label
    if not names:
        raise FileError(f'label map "{path}" has no items; expected item {{ name: "cat" label: 1 }} for each class')
    return names


def read_lines(path: str) -> list[tuple[str, str]]:
    """Return the (image, box file) of each line."""
    result = []
    for number, line in enumerate(files.lines(path, "image list"), 1):
        if line:
            parts = line.split()
            if len(parts) != 2:
                raise FileError(f'{path}:{number}: "{line}" has {len(parts)} words; expected "image.jpg boxes.xml"')
            result.append((parts[0], parts[1]))
    if not result:
        raise FileError(f'image list "{path}" is empty; expected a line "image.jpg boxes.xml" for each image')
    return result


def _label(names: Names, name: str, path: str) -> int:
    if name not in names:
        raise FileError(f'{path}: the label map does not have the name "{name}"{did_you_mean(name, names)}; add it')
    return names[name]


def read_voc(path: str, names: Names) -> Found:
    """Read the boxes of a PASCAL VOC or ILSVRC file: annotation/object/{name, difficult, bndbox}."""
    try:
        root = ET.fromstring(files.read_bytes(path))
        rows: list[Row] = []
        for item in root.iter("object"):
            box = item.find("bndbox")
            if box is None:
                raise FileError(f"{path}: an object has no bndbox; expected xmin, ymin, xmax and ymax in it")
            corners = [float(box.findtext(side) or "nan") for side in ("xmin", "ymin", "xmax", "ymax")]
            if np.isnan(corners).any():
                raise FileError(f"{path}: a bndbox is incomplete; expected xmin, ymin, xmax and ymax in it")
            label = _label(names, (item.findtext("name") or "").strip(), path)
            left, top, right, bottom = map(int, corners)
            rows.append((label, left, top, right, bottom, (item.findtext("difficult") or "0").strip() == "1"))
        size = tuple(int(root.findtext(f"size/{side}") or 0) for side in ("height", "width"))
    except (ET.ParseError, ValueError) as error:
        raise FileError(f"{path}: is not a file of VOC annotations: {error}") from error
    return rows, (size[0], size[1])


def read_coco_image(path: str, names: Names) -> Found:
    """Read the boxes of one image in the format of SSD's COCO scripts: {"image": {...}, "annotation": [...]}."""
    try:
        content = json.loads(files.read_bytes(path))
        rows = [_coco_row(_label(names, str(each["category_id"]), path), each) for each in content["annotation"]]
        image = content.get("image", {})
        return rows, (int(image.get("height", 0)), int(image.get("width", 0)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fact = f"{type(error).__name__} {error}"
        raise FileError(f'{path}: is not of the form {{"image": ..., "annotation": [...]}}: {fact}') from error


def read_text(path: str, names: Names) -> Found:
    """Read the boxes of lines `label xmin ymin xmax ymax`."""
    rows: list[Row] = []
    for number, line in enumerate(files.lines(path, "file of boxes"), 1):
        if line:
            try:
                label, *corners = line.split()
                xmin, ymin, xmax, ymax = map(float, corners)
                rows.append((int(label), xmin, ymin, xmax, ymax, False))
            except ValueError:
                raise FileError(f'{path}:{number}: "{line}" is not "label xmin ymin xmax ymax"') from None
    return rows, (0, 0)


def read_coco(path: str, names: Names | None) -> tuple[list[tuple[str, str]], Callable[[str], Found]]:
    """Read image lines and boxes from a COCO instances file: {"images": [...], "annotations": [...], "categories":
    [...]}.

    Without `names`, the id of a category is its label.
    """
    try:
        content = json.loads(files.read_bytes(path))
        labels = {each["id"]: each["id"] for each in content["categories"]}
        if names is not None:
            labels = {each["id"]: _label(names, each["name"], path) for each in content["categories"]}
        sizes = {each["file_name"]: (int(each["height"]), int(each["width"])) for each in content["images"]}
        by_id = {each["id"]: each["file_name"] for each in content["images"]}
        found: dict[str, list[Row]] = {name: [] for name in sizes}
        for each in content["annotations"]:
            found[by_id[each["image_id"]]].append(_coco_row(labels[each["category_id"]], each))
    except (ValueError, KeyError, TypeError) as error:
        fact = f"{type(error).__name__} {error}"
        raise FileError(
            f'{path}: is not a file of COCO with "images", "annotations" and "categories": {fact}'
        ) from error
    return [(name, name) for name in found], lambda name: (found[name], sizes[name])


def _coco_row(label: int, each: dict[str, Any]) -> Row:
    x, y, width, height = map(float, each["bbox"])
    return label, x, y, x + width, y + height, bool(each.get("iscrowd", 0))


LABEL_TYPES: dict[str, Callable[[str, Names], Found]] = {"xml": read_voc, "json": read_coco_image, "txt": read_text}


def reader(label_type: str, root: str, names: Names) -> Callable[[str], Found]:
    """Return a function that reads the boxes of a file in the folder `root`."""
    return partial(_read, LABEL_TYPES[label_type], root, names)


def _read(read: Callable[[str, Names], Found], root: str, names: Names, name: str) -> Found:
    return read(root + name, names)
