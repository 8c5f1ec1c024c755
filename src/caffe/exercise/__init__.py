"""Runs with planted faults: exercises for students, and what the doctor itself is measured with."""

from __future__ import annotations

from caffe.exercise.make import codes, make
from caffe.exercise.mark import Mark, mark

__all__ = ["Mark", "codes", "make", "mark"]
