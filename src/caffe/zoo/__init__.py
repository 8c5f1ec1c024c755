"""Model folders: a net, its weights, and how pictures are prepared for it."""

from __future__ import annotations

from caffe.zoo.folder import ModelFolder
from caffe.zoo.predict import Predictor
from caffe.zoo.preparation import Preparation

__all__ = ["ModelFolder", "Predictor", "Preparation"]
