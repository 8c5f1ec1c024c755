"""Forks of Caffe: their messages and fields (*.proto), how each field is treated, and their layer types."""

from caffe.proto.forks.layers import LAYERS, VALUES, foreign_layer, foreign_value

__all__ = ["LAYERS", "VALUES", "foreign_layer", "foreign_value"]
