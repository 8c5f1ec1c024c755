"""Runs with planted faults: exercises for students, and what the doctor itself is measured with."""

from __future__ import annotations

from caffe.exercise.marking import Mark, mark
from caffe.exercise.writing import codes, make

__all__ = ["Mark", "codes", "make", "mark"]
