"""`caffe inspect`: determines what a file is, which Caffe created it, and which parts run here."""

from __future__ import annotations

from caffe.inspection.files import inspect
from caffe.inspection.report import Report

__all__ = ["Report", "inspect"]
