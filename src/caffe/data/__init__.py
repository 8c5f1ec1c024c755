"""Data: record sources, decoding, transformation, and prefetching.

These modules do not import torch; the layers in `caffe.layers.data` turn their arrays into blobs.
"""

from __future__ import annotations

from caffe.data.databases import (
    leveldb,
    lmdb,  # defining the classes registers the backends
    tar,
)
from caffe.data.databases.base import RecordSource, open_source
from caffe.data.databases.writer import RecordWriter, create_database

__all__ = ["RecordSource", "RecordWriter", "create_database", "leveldb", "lmdb", "open_source", "tar"]
