"""DetectNet's image augmentation, and the grid of labels that its nets are trained on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from caffe.layers.base import Effects, Layer, has_values, shape_text
from caffe.layers.support.values import untraced
from caffe.limits import check_size
from caffe.proto import caffe_pb2
from caffe.proto.weights import read_mean

__all__ = ["DetectNetTransformation"]

COLUMNS = 16
"""The numbers of a box: x, y, width, height, angle, class, scenario, rotation, truncation and others."""
PLANES = 8
"""The planes of the grid before those of the classes."""
_TINY = float(np.finfo(np.float32).eps)


class Change(NamedTuple):
    """How an image is changed: hue in degrees, saturation, mirroring, size, rotation, and where the crop starts."""

    hue: float
    saturation: float
    flip: bool
    size: tuple[int, int]  # width, height
    rotation: float
    corner: tuple[int, int]


def rounded(x: float) -> int:
    """x as an integer, halves away from zero."""
    return int(np.floor(abs(x) + 0.5) * (1 if x >= 0 else -1))


def drawn(augment: Any, image: tuple[int, int], size: tuple[int, int]) -> Change:
    """A random change of an image of (width, height) `image`, whose crop has `size`."""

    def get(name: str) -> float:
        return float(getattr(augment, name))

    def happens(name: str) -> bool:
        return float(torch.rand(())) <= get(name)

    def spread(name: str) -> float:
        return (float(torch.rand(())) - 0.5) * 2 * get(name)

    hue = min(max(spread("hue_rotation"), -180.0), 180.0) if happens("hue_rotation_prob") else 0.0
    saturation = 1 - float(torch.rand(())) * get("desaturation_max") if happens("desaturation_prob") else 1.0
    flip, scaled = happens("flip_prob"), image
    if happens("scale_prob"):
        by = get("scale_min") + (get("scale_max") - get("scale_min")) * float(torch.rand(()))
        scaled = (rounded(image[0] * by), rounded(image[1] * by))
    rotation = spread("max_rotate_degree") if happens("rotation_prob") else 0.0
    before = rotated_size(scaled, rotation) if abs(rotation) > _TINY else scaled
    share, shift = (0.5, 0.5), (0, 0)
    if happens("crop_prob"):
        share, shift = (float(torch.rand(())), float(torch.rand(()))), (int(get("shift_x")), int(get("shift_y")))
    corner = [rounded(p * (b - n + s) - int(s / 2)) for p, b, n, s in zip(share, before, size, shift, strict=True)]
    return Change(hue, saturation, flip, scaled, rotation, (corner[0], corner[1]))


def rotated_size(size: tuple[int, int], degrees: float) -> tuple[int, int]:
    """Width and height, in whole pixels, of the upright box around a rotated one."""
    import cv2

    corners = cv2.boxPoints(((float(int(size[0] * 0.5)), float(int(size[1] * 0.5))), size, degrees))
    low, high = np.floor(corners.min(0)), np.ceil(corners.max(0))
    return int(high[0] - low[0] + 1), int(high[1] - low[1] + 1)


def rotation_of(size: tuple[int, int], degrees: float) -> np.ndarray:
    """The affine matrix (2, 3) that rotates an image and moves it to positive coordinates."""
    import cv2

    middle = (size[0] * 0.5, size[1] * 0.5)
    start, turned = (cv2.boxPoints((middle, size, angle)) for angle in (0.0, degrees))
    return np.asarray(cv2.getAffineTransform(start[:3], (turned - np.floor(turned.min(0)))[:3].astype(np.float32)))


def changed(image: np.ndarray, mean: np.ndarray | None, change: Change, size: tuple[int, int]) -> np.ndarray:
    """The image (H, W, 3), from 0 to 255, after the change, less the mean, in `size`."""
    import cv2

    image = image.astype(np.float32) / 255
    if abs(change.hue) > _TINY or change.saturation < 1 - 1 / 255:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2HSV) + np.array([change.hue, 0, 0], np.float32)
        image = cv2.cvtColor(image * np.array([1, change.saturation, 1], np.float32), cv2.COLOR_HSV2BGR)
    if mean is not None:
        image = image - mean
    if change.flip:
        image = image[:, ::-1]
    if image.shape[1::-1] != change.size:
        image = cv2.resize(np.ascontiguousarray(image), change.size, interpolation=cv2.INTER_CUBIC)
    if abs(change.rotation) > _TINY:
        wide = rotated_size(change.size, change.rotation)
        room = np.zeros((wide[1], wide[0], 3), np.float32)
        matrix = rotation_of(change.size, change.rotation)
        how = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_TRANSPARENT}
        image = cv2.warpAffine(np.ascontiguousarray(image), matrix, wide, dst=room, **how)
    made = np.zeros((size[1], size[0], 3), np.float32)
    (x, y), (height, width) = change.corner, image.shape[:2]
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + size[0], width), min(y + size[1], height)
    if left < right and top < bottom:
        made[top - y : bottom - y, left - x : right - x] = image[top:bottom, left:right]
    return made * 255


def moved(boxes: np.ndarray, change: Change, image: tuple[int, int]) -> np.ndarray:
    """Boxes (B, 4), x, y, width, height, of an image of (width, height) `image` after the change."""
    boxes = boxes.copy()
    if change.flip:
        boxes[:, 0] = image[0] - boxes[:, 0] - boxes[:, 2] - 1
    boxes *= np.array([change.size[0] / image[0], change.size[1] / image[1]] * 2, np.float32)
    if abs(change.rotation) > _TINY:
        centre = boxes[:, :2] + boxes[:, 2:] / 2
        matrix = rotation_of(change.size, change.rotation).astype(np.float32)
        boxes[:, :2] = centre @ matrix[:, :2].T + matrix[:, 2] - boxes[:, 2:] / 2
    boxes[:, :2] -= np.array(change.corner, np.float32)
    return boxes


def grid(param: Any, boxes: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Return the label planes (8 + classes, H, W) for boxes (B, 4) of the classes `kinds` (B), as in DetectNet."""
    known = {pair.src: pair.dst for pair in param.object_class} or {1: 0}
    stride, width, height = param.stride, param.image_size_x, param.image_size_y
    planes = np.zeros((PLANES + max(known.values()) + 1, rounded(height / stride), rounded(width / stride)), np.float32)
    if param.crop_bboxes:
        ends = np.clip(boxes[:, :2] + boxes[:, 2:], None, np.array([width, height], np.float32))
        boxes = np.concatenate([boxes[:, :2].clip(0), (ends - boxes[:, :2].clip(0)).clip(0)], 1)
    used = np.array([int(kind) in known for kind in kinds], bool) & (boxes[:, 2] * boxes[:, 3] >= _TINY)
    boxes, kinds = boxes[used], kinds[used]
    if not len(boxes):
        return planes
    size = boxes[:, 2:] * np.float32(param.scale_cvg)
    if param.gridbox_type == caffe_pb2.DetectNetGroundTruthParameter.GRIDBOX_MIN:
        size = np.minimum(boxes[:, 2:], np.maximum(param.min_cvg_len, size))
    else:
        size = np.minimum(param.max_cvg_len, size)
    low = boxes[:, :2] + boxes[:, 2:] / 2 - size / 2
    shared = [_shared(low[:, k], size[:, k], n, stride) for k, n in ((1, planes.shape[1]), (0, planes.shape[2]))]
    covered = shared[0][:, :, None] * shared[1][:, None, :] / stride**2 > _TINY
    last = len(boxes) - 1 - covered[::-1].argmax(0)
    there = covered.any(0)
    corner = np.stack(np.meshgrid(np.arange(planes.shape[2]), np.arange(planes.shape[1]))) * stride
    box = boxes[last].transpose(2, 0, 1)
    norm = np.maximum(0 if param.obj_norm else 1, stride**2 / size.prod(1))[last]
    values = [np.ones_like(norm), *(box[:2] - corner), *(box[:2] + box[2:] - corner), *(1 / box[2:]), norm]
    planes[:PLANES] = np.where(there, np.stack(values), 0)
    number = np.array([known[int(kind)] for kind in kinds])[last]
    planes[PLANES:] = (np.arange(len(planes) - PLANES)[:, None, None] == number) & there
    return planes


def _shared(low: np.ndarray, size: np.ndarray, count: int, stride: int) -> np.ndarray:
    """Return the fraction of each of `count` cells that each interval covers, (B, count)."""
    index = np.arange(count)
    ends = np.minimum((low + size)[:, None], (index + 1) * stride)
    return (ends - np.maximum(low[:, None], index * stride)).clip(0)


class _Transformation(Layer, abstract=True):
    """Base of DetectNetTransformation: helper methods."""

    planes: int
    cells: tuple[int, ...]
    file: np.ndarray | None

    def example(self, index: int, x: Tensor) -> Tensor | None:
        """Return items without boxes: the first row of each item states 0 boxes of 16 numbers."""
        if index != 1:
            return None
        rows = torch.zeros_like(x)
        rows.view(len(x), -1, COLUMNS)[:, 0, 1] = COLUMNS
        return rows

    @torch.no_grad()
    def transform(self, images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tops: the images, and the grids of labels."""
        opt, count = self.opt, len(images)
        if not has_values(images):
            sizes = (opt.image_size_y, opt.image_size_x)
            return images.new_empty(count, 3, *sizes), images.new_empty(count, self.planes, *self.cells)
        made = [
            self.one(image, rows)
            for image, rows in zip(
                images.cpu().float().numpy().transpose(0, 2, 3, 1),
                boxes.cpu().float().numpy().reshape(count, -1, COLUMNS),
                strict=True,
            )
        ]
        parts = (torch.from_numpy(np.stack(part)).to(images) for part in zip(*made, strict=True))
        pictures, labels = parts
        return pictures.permute(0, 3, 1, 2).contiguous(), labels

    def one(self, image: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The image and the labels of one item."""
        opt = self.opt
        number, columns = int(rows[0, 0]), int(rows[0, 1])
        fact = f"{self.bottom_name(1)} states {number} boxes of {columns} numbers"
        self.require(columns == COLUMNS and 0 <= number < len(rows), f"{fact}, expected up to {len(rows) - 1} of 16")
        size, old = (opt.image_size_x, opt.image_size_y), (image.shape[1], image.shape[0])
        change = Change(0.0, 1.0, False, size, 0.0, (0, 0))
        if self.training:
            change = drawn(self.spec.detectnet_augmentation_param, old, size)
        labels = grid(opt, moved(rows[1 : number + 1, :4], change, old), rows[1 : number + 1, 5])
        return changed(image, self.mean(old), change, size), labels

    def mean(self, size: tuple[int, int]) -> np.ndarray | None:
        """The mean divided by 255, for each pixel or for each channel."""
        if self.file is not None:
            import cv2

            mean = np.ascontiguousarray(self.file.reshape(self.file.shape[-3:]).transpose(1, 2, 0), np.float32)
            return np.asarray(cv2.resize(mean, size, interpolation=cv2.INTER_CUBIC)) / np.float32(255)
        given = self.spec.transform_param.mean_value
        return np.array(list(given), np.float32) / np.float32(255) if given else None


class DetectNetTransformation(_Transformation, bottoms=2, tops=2, options="detectnet_groundtruth_param"):
    """Augments images and turns their boxes into the grid of labels of DetectNet.

    bottoms: images (N, 3, h, w) in BGR from 0 to 255; boxes (N, 1, B + 1, 16), a row with their number and 16, then
    rows [x, y, width, height, angle, class, ...]   tops: images (N, 3, image_size_y, image_size_x), less the mean;
    labels (N, 8 + classes, H / stride, W / stride): object, x1, y1, x2, y2 from the cell's corner, 1 / width,
    1 / height, stride^2 / area of the coverage, coverage of each class

    The coverage of a box is the box scaled by scale_cvg about its centre. A cell gets the values of the last box whose
    coverage overlaps the cell. TRAIN draws hue, saturation, mirroring, scale, rotation and crop from the ranges of
    detectnet_augmentation_param; TEST resizes the image to the size of the top.
    There is no gradient. Source: NVIDIA/caffe, detectnet_transform_layer.cpp and detectnet_coverage_rectangular.cpp.
    """

    constant = (0, 1)
    exempt = (0, 1)
    effects = Effects.VALUES | Effects.RANDOM
    more_options = ("detectnet_augmentation_param", "transform_param")

    def setup(self, images: Tensor, boxes: Tensor) -> None:
        opt, param = self.opt, self.spec.transform_param
        fact = f"{self.bottom_name(0)} has shape {shape_text(images.shape)}, expected (N, 3, H, W)"
        self.require(images.dim() == 4 and images.shape[1] == 3 and images.numel() > 0, fact)
        rows = boxes.dim() > 1 and len(boxes) == len(images) and boxes.shape[1:].numel() % COLUMNS == 0
        fact = f"{self.bottom_name(1)} has shape {shape_text(boxes.shape)}, expected ({len(images)}, 1, boxes + 1, 16)"
        self.require(rows and boxes.numel() > 0, fact)
        for name in ("image_size_x", "image_size_y", "stride"):
            self.require(getattr(opt, name) > 0, f"{name} must be given and positive")
        self.require(len(param.mean_value) in (0, 1, 3), f"has {len(param.mean_value)} mean_value, expected 1 or 3")
        self.planes = PLANES + max([pair.dst for pair in opt.object_class] or [0]) + 1
        self.cells = tuple(rounded(n / opt.stride) for n in (opt.image_size_y, opt.image_size_x))
        check_size("the labels", (len(images), self.planes, *self.cells), self.error)
        self.file = read_mean(param.mean_file) if param.mean_file else None

    def forward(self, images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        return untraced(self.transform)(images, boxes)
