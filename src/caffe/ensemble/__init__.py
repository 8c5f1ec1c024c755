"""Ensembles: several trained nets whose outputs are combined."""

from caffe.ensemble.combine import METHODS
from caffe.ensemble.net import Ensemble

__all__ = ["METHODS", "Ensemble"]
