"""Protobuf messages, their text and binary files, and the upgrade of old formats.

    caffe_pb2   the message classes, generated from caffe.proto
    text        prototxt files
    upgrade     nets and solvers of older formats
    weights     .caffemodel and HDF5 weights, mean files
    state       .solverstate files
    files       opening and writing files safely

These modules do not import torch; h5py is imported when an HDF5 file is read or written.
"""

from __future__ import annotations

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    """Load `caffe.proto.caffe_pb2` on first access, as pycaffe allows."""
    if name != "caffe_pb2":
        raise AttributeError(f"module 'caffe.proto' has no attribute {name!r}")
    return importlib.import_module("caffe.proto.caffe_pb2")
