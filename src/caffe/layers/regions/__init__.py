"""Layers of the R-CNN family: what they pool from regions, which regions they propose, and their losses."""

from __future__ import annotations

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
