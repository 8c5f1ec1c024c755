"""Helpers for the tests of data sources and data layers."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from google.protobuf import text_format

from caffe.data.databases.datum import encode_datum
from caffe.data.databases.lmdb import LmdbWriter
from caffe.layers import layer_class
from caffe.proto import caffe_pb2
from tests.conftest import shared


def copy_of(name: str, folder: Path) -> Path:
    """A writable copy of a reference database (or of the whole reference folder, for ".")."""
    target = folder / ("reference" if name == "." else name)
    shutil.copytree(shared("golden", "data", name), target)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target


def images(count: int, shape: tuple[int, int, int] = (3, 5, 7), seed: int = 0) -> np.ndarray:
    """Random pixels (count, C, H, W)."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def write_lmdb(path: Path, pixels: Iterable[np.ndarray]) -> Path:
    """An LMDB of raw records with the labels 0, 1, 2, ..."""
    with LmdbWriter(path) as writer:
        for index, image in enumerate(pixels):
            writer.put(b"%08d" % index, encode_datum(image, index))
    return path


def write_png(path: Path, image: np.ndarray) -> Path:
    """An image file of pixels (C, H, W)."""
    assert cv2.imwrite(str(path), np.ascontiguousarray(image.transpose(1, 2, 0)))
    return path


def layer(text: str, phase: int = caffe_pb2.TRAIN, *bottoms: Any) -> Any:
    """Build a layer from its prototxt."""
    spec = text_format.Parse(text, caffe_pb2.LayerParameter())
    made = layer_class(spec.type)(spec, phase)
    made.setup(*bottoms)
    return made
