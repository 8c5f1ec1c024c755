"""Data: record sources, decoding, transformation, and prefetching.

These modules do not import torch; the layers in `caffe.layers.data` turn their arrays into blobs.
"""

from __future__ import annotations

import importlib
import pkgutil

from caffe.data import databases
from caffe.data.databases.base import READERS, RecordSource, open_source
from caffe.data.databases.writer import WRITERS, RecordWriter, create_database

__all__ = ["READERS", "WRITERS", "RecordSource", "RecordWriter", "create_database", "open_source"]

for _module in pkgutil.iter_modules(databases.__path__):  # defining a class registers its backend
    importlib.import_module(f"{databases.__name__}.{_module.name}")
