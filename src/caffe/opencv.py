"""OpenCV, imported when it is first used.

The import takes 70 ms, a quarter of the start of `caffe train` without that of torch, and many nets read no pictures.

    from caffe.opencv import cv2
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["cv2"]


class _OpenCV:
    """Stands for the module cv2. Any thread may be the first to use it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("cv2"), name)


if TYPE_CHECKING:
    import cv2
else:
    cv2 = _OpenCV()
