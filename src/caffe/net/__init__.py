"""Nets: from a NetParameter to something that runs."""

from caffe.net.net import Net

__all__ = ["Net"]
