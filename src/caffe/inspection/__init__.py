"""What a file is, which Caffe made it, and what of it runs here: `caffe inspect`."""

from __future__ import annotations

from caffe.inspection.files import inspect
from caffe.inspection.report import Report

__all__ = ["Report", "inspect"]
