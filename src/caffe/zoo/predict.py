"""Classifies pictures: from pixels to class probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caffe.errors import ArgumentError, FileError
from caffe.net import Net
from caffe.proto.caffe_pb2 import TEST
from caffe.zoo.folder import ModelFolder

__all__ = ["Predictor"]


class Predictor:
    """The net of a model folder with its weights, its preparation of pictures, and its class names.

        predictor = Predictor("flowers")
        probabilities = predictor.predict([pixels])      # (1, classes)

    Raises FileError if weights or labels are missing or do not fit.
    """

    def __init__(self, folder: str | Path | ModelFolder, engine: str = "torch") -> None:
        self.folder = folder if isinstance(folder, ModelFolder) else ModelFolder.open(folder)
        self.preparation = self.folder.preparation()
        weights = str(self.folder.weights)
        self.net = Net(str(self.folder.net), TEST, weights=weights)
        if not self.net.inputs or len(self.net.blobs[self.net.inputs[0]].shape) != 4 or not self.net.outputs:
            raise ArgumentError(f"{self.folder.net}: is not a net for pictures; give one with an input of 4 axes")
        self.output = self.net.outputs[-1]
        self.labels = self.folder.labels() or [str(number) for number in range(self.classes)]
        if len(self.labels) != self.classes:
            raise FileError(f"{self.folder.path}: has {len(self.labels)} labels and a net of {self.classes} classes")
        self.net.optimize(engine=engine)

    @property
    def classes(self) -> int:
        return int(np.prod(self.net.blobs[self.output].shape[1:]))

    def predict(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Return the net's output (N, classes) for pixels (H, W, 3) in BGR order, or (H, W)."""
        rows = np.stack([self.preparation.apply(picture) for picture in pictures])
        name = self.net.inputs[0]
        wanted = tuple(self.net.blobs[name].shape[1:])
        if rows.shape[1:] != wanted:
            raise ArgumentError(f"{self.folder.path}: pictures become {rows.shape[1:]}, the net takes {wanted}")
        arrays: Any = {name: rows}
        return self.net.forward_all(**arrays)[self.output].reshape(len(rows), -1)
