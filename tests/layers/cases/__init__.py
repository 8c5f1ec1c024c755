"""The cases of all layer types. Each module has a list CASES, and the name of the module with the layers."""

from __future__ import annotations

import importlib
import pkgutil

from tests.layers.case import Case

CASES: list[Case] = []
ELSEWHERE: dict[str, str] = {}
"""Types that need files or servers, with the tests that cover them."""

for _info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
    _module = importlib.import_module(f"{__name__}.{_info.name}")
    CASES += _module.CASES
    ELSEWHERE.update(_module.ELSEWHERE)
