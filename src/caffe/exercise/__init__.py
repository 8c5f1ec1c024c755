"""Runs with planted faults: exercises for students, and test cases for the doctor."""

from __future__ import annotations

from caffe.exercise.marking import Mark, mark
from caffe.exercise.writing import codes, make

__all__ = ["Mark", "codes", "make", "mark"]
