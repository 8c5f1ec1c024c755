"""Forks of Caffe: their messages and fields (*.proto), what becomes of each field, and their layer types."""

from caffe.proto.forks.layers import LAYERS, VALUES, foreign_layer, foreign_value

__all__ = ["LAYERS", "VALUES", "foreign_layer", "foreign_value"]
