"""Shared code of the layers: options, geometry, shape inference, effects, kernels."""
