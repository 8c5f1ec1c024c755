"""Converts weights from and to safetensors files and torch's state dictionaries."""

from __future__ import annotations

from caffe.convert.matching import Match, match
from caffe.convert.tensors import FORMS, form_of, read_tensors, write_tensors
from caffe.convert.weights import export_weights, import_weights

__all__ = [
    "FORMS",
    "Match",
    "export_weights",
    "form_of",
    "import_weights",
    "match",
    "read_tensors",
    "write_tensors",
]
