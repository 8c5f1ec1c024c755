"""Stand-ins for the modules that py-faster-rcnn's `make` compiles, some of them for GPUs only.

    nms.cpu_nms, nms.gpu_nms, utils.cython_nms    non-maximum suppression
    utils.cython_bbox                             the overlaps of boxes

`import caffe` installs them. Python uses one if it finds no other module of that name. The packages `nms` and `utils`
themselves are folders of py-faster-rcnn's `lib`, which must be on the path.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["install"]

_FUNCTIONS = {
    "nms.cpu_nms": {"cpu_nms": "cpu_nms"},
    "nms.gpu_nms": {"gpu_nms": "gpu_nms"},
    "utils.cython_bbox": {"bbox_overlaps": "bbox_overlaps"},
    "utils.cython_nms": {"nms": "cpu_nms"},
}
"""The functions of each module, and their names in `caffe.stand_ins.rcnn`."""


class _StandIns:
    """Finds and loads the modules of `_FUNCTIONS`. importlib.abc has base classes for this, but is slow to import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        loader: Any = self
        return ModuleSpec(fullname, loader) if fullname in _FUNCTIONS else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python create the module."""

    def exec_module(self, module: ModuleType) -> None:
        from caffe import log

        functions = importlib.import_module("caffe.stand_ins.rcnn")
        for name, ours in _FUNCTIONS[module.__name__].items():
            setattr(module, name, getattr(functions, ours))
        log.info("stand_ins.py", f"{module.__name__} is not compiled: its functions run on PyTorch")


def install() -> None:
    """Let Python find the stand-ins, after all other modules."""
    if not any(isinstance(finder, _StandIns) for finder in sys.meta_path):
        sys.meta_path.append(_StandIns())
