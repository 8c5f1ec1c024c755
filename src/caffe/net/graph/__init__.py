"""Builds the steps of a net from a NetParameter: rules, splits, shapes, shared parameters, gradients."""
