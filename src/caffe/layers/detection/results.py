"""Detections in image pixels, and the result files of DetectionOutput."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from caffe import log
from caffe.layers.base import Layer
from caffe.proto import caffe_pb2, files, text

__all__ = ["ResultFiles", "in_pixels", "is_missing", "read_sizes"]

_Resize = caffe_pb2.ResizeParameter
_FORMATS = ("VOC", "COCO", "ILSVRC")


def in_pixels(boxes: Tensor, size: tuple[int, int], resize: Any = None) -> Tensor:
    """Convert boxes (..., 4) relative to the net's input to pixels of the image, clipped to it.

    `size` is the image's (height, width). `resize` is the ResizeParameter that produced the input; None means that the
    image was stretched to the input's size.
    """
    height, width = size
    scale = boxes.new_tensor([width, height, width, height])
    if resize is None or resize.resize_mode == _Resize.WARP:
        return boxes.clamp(0, 1) * scale
    if resize.resize_mode == _Resize.FIT_LARGE_SIZE_AND_PAD:
        return _without_padding(boxes, width / height, resize.height, resize.width).clamp(0, 1) * scale
    if not (resize.height_scale and resize.width_scale):
        return boxes.clamp(0, 1) * scale
    crop = boxes.new_tensor([resize.width_scale, resize.height_scale] * 2)
    return torch.minimum((boxes * crop).clamp(min=0), scale)


def _without_padding(boxes: Tensor, aspect: float, height: float, width: float) -> Tensor:
    """Convert boxes relative to the padded input to boxes relative to the image in its centre, without clipping."""
    margin_x = margin_y = 0.0
    if aspect > width / height:
        margin_y = (height - width / aspect) / 2 / height
    else:
        margin_x = (width - height * aspect) / 2 / width
    near = boxes.new_tensor([margin_x, margin_y])
    inside = ((boxes[..., :2] < 1 - near) & (boxes[..., 2:] > near)).all(-1, keepdim=True)
    return torch.where(inside, (boxes - near.repeat(2)) / (1 - 2 * near).repeat(2), boxes)


def check_resize(layer: Layer, resize: Any) -> None:
    """Raise the layer's error if a ResizeParameter lacks the sizes that its mode needs."""
    known = resize.height > 0 and resize.width > 0
    layer.require(known, "resize_param has no height and width, which are the sizes of the net's input")


def is_missing(layer: Layer, *paths: str) -> bool:
    """Whether one of the files does not exist, with a warning: the layer raises the error when it gets an image."""
    missing = [path for path in paths if not Path(path).exists()]
    if missing:
        fact = f"{' and '.join(missing)} does not exist; this is an error as soon as the layer gets an image"
        log.warning("results.py", f'layer "{layer.name}" ({layer.type}): {fact}')
    return bool(missing)


def read_sizes(layer: Layer, path: str) -> list[tuple[str, int, int]]:
    """Read the lines `name height width` of a name_size_file."""
    found = []
    for number, line in enumerate(files.lines(path, "name_size_file"), 1):
        parts = line.split()
        if not parts:
            continue
        sizes = [int(part) for part in parts[1:] if part.isdigit()]
        fact = f'{path}:{number}: "{line.strip()}", expected a name, the height and the width of the image'
        layer.require(len(parts) == 3 and len(sizes) == 2 and min(sizes) > 0, fact)
        found.append((parts[0], sizes[0], sizes[1]))
    layer.require(len(found) > 0, f"name_size_file {path} is empty; expected a line `name height width` for each image")
    return found


class ResultFiles:
    """Writes the detections of `num_test_image` images to files in the format of VOC, COCO or ILSVRC.

    Images must arrive in the order of name_size_file. After the last image the files are written, and the next image
    counts as the first.
    """

    def __init__(self, layer: Layer, param: Any, labels: Sequence[int]) -> None:
        """`param` is a SaveOutputParameter; `labels` are the labels that detections can have."""
        self.layer = layer
        self.format = param.output_format
        layer.require(
            self.format in _FORMATS, f'output_format is "{self.format}", expected one of {", ".join(_FORMATS)}'
        )
        self.images = read_sizes(layer, param.name_size_file)
        self.count = param.num_test_image if param.HasField("num_test_image") else len(self.images)
        fact = f"num_test_image is {self.count}, expected 1 to {len(self.images)}, the lines of {param.name_size_file}"
        layer.require(1 <= self.count <= len(self.images), fact)
        self.resize = param.resize_param if param.HasField("resize_param") else None
        if self.resize is not None:
            check_resize(layer, self.resize)
        items = text.read(param.label_map_file, caffe_pb2.LabelMap()).item
        self.names = {item.label: item.name for item in items}
        missing = [label for label in labels if label not in self.names]
        layer.require(not missing, f"label_map_file {param.label_map_file} has no name for label {missing[:1]}")
        self.labels = labels
        self.folder, self.prefix = Path(param.output_directory), param.output_name_prefix
        self.next = 0
        self.found: list[dict[str, Any]] = []

    def add(self, rows: Tensor) -> None:
        """Add the detections (K, 7) of the next image."""
        name, height, width = self.images[self.next]
        boxes = in_pixels(rows[:, 3:7], (height, width), self.resize)
        sides = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).tolist()
        for (label, score), box in zip(rows[:, 1:3].tolist(), sides, strict=True):
            rounded = [math.floor(x * 100 + 0.5) / 100 for x in box]
            self.found.append({"image": name, "label": int(label), "box": rounded, "score": score})
        self.next += 1
        if self.next == self.count:
            self.write()
            self.next, self.found = 0, []

    def write(self) -> None:
        """Write the files."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self.layer.error(f"cannot make output_directory {self.folder}: {files.reason(error)}")
        for name, content in self._contents():
            with files.atomic(self.folder / name) as file:
                file.write(content.encode())

    def _contents(self) -> Iterator[tuple[str, str]]:
        """Name and content of each file."""
        if self.format == "COCO":
            yield f"{self.prefix}.json", json.dumps([self._coco(one) for one in self.found], indent=1)
        elif self.format == "ILSVRC":
            yield f"{self.prefix}.txt", "".join(_line(one["image"], one["label"], one) for one in self.found)
        else:
            for label in self.labels:
                mine = [_line(one["image"], "", one) for one in self.found if one["label"] == label]
                yield f"{self.prefix}{self.names[label]}.txt", "".join(mine)

    def _coco(self, one: dict[str, Any]) -> dict[str, Any]:
        named = {"image_id": one["image"], "category_id": self.names[one["label"]]}
        numbers = {key: int(name) if re.fullmatch("-?[0-9]+", name) else name for key, name in named.items()}
        return {**numbers, "bbox": one["box"], "score": float(f"{one['score']:.9g}")}


def _line(image: str, label: object, one: dict[str, Any]) -> str:
    """A line with the score and the corners in whole pixels."""
    x, y, width, height = (int(side) for side in one["box"])
    head = " ".join(str(word) for word in (image, label) if word != "")
    return f"{head} {one['score']:g} {x} {y} {x + width} {y + height}\n"
