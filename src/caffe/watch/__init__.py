"""Follows a training run: findings while it runs, lines for each epoch, and TensorBoard's event files."""

from __future__ import annotations

from caffe.watch.epochs import Epochs
from caffe.watch.reports import Reports
from caffe.watch.watch import FaultWatcher

__all__ = ["Epochs", "FaultWatcher", "Reports"]
