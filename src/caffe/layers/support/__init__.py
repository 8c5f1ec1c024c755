"""What layers are built from and that is no layer: options, geometry, shape inference, effects, kernels."""
