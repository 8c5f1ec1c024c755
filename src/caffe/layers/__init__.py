"""The layer types, one file per family. Importing this package registers them all."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from caffe import net_spec
from caffe.layers.base import Effects, Layer, Loss, Source
from caffe.layers.support.types import is_a, layer_class, layer_types

__all__ = ["Effects", "Layer", "Loss", "Source", "is_a", "layer_class", "layer_types"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def __getattr__(name: str) -> Any:
    """`layers.Pooling(bottom, ...)`, a layer of a NetSpec, as `from caffe import layers as L` means in pycaffe."""
    return net_spec.layer_function(name)
