"""Ensembles: several trained nets that answer together."""

from caffe.ensemble.combine import METHODS
from caffe.ensemble.net import Ensemble

__all__ = ["METHODS", "Ensemble"]
