"""FlowNet's augmentation of images and flow fields. Importing this package registers its layers."""

from __future__ import annotations

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
