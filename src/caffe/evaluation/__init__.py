"""Evaluates a classifier: accuracy with its interval, classes, confusion, calibration, and its worst mistakes."""

from __future__ import annotations

from caffe.evaluation.judgement import Judgement
from caffe.evaluation.regression import Regression

__all__ = ["Judgement", "Regression"]
