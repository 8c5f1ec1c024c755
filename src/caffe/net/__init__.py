"""Nets: building a net from a NetParameter, and running it."""

from caffe.net.net import Net

__all__ = ["Net"]
