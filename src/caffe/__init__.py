"""Caffe for today: the same files, API and commands, on PyTorch."""

from __future__ import annotations

from caffe.errors import CaffeError

__version__ = "0.1.0"
__all__ = ["CaffeError", "__version__"]
