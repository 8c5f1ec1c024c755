"""Decides whether nets may run the code of their Python layers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from caffe.errors import NetError

__all__ = ["allowed", "check_python_layers", "switched"]

_switch: bool | None = None


def allowed() -> bool:
    """The default: nets may run such code unless CAFFE_PYTHON_LAYERS is 0."""
    return os.environ.get("CAFFE_PYTHON_LAYERS", "1") not in ("", "0") if _switch is None else _switch


@contextmanager
def switched(on: bool) -> Iterator[None]:
    """A context that, with `on` False, changes the default to refuse such code, regardless of the environment."""
    global _switch
    before = _switch
    _switch = False if not on else before
    try:
        yield
    finally:
        _switch = before


def check_python_layers(net: Any, python_layers: bool | None, locate: Callable[[int], str]) -> None:
    """Raise a `NetError` for the first Python layer of a NetParameter, if such layers are not allowed.

    `python_layers` is the argument of `Net`; None uses the default. No code has been imported at this point.
    """
    if allowed() if python_layers is None else python_layers:
        return
    for index, layer in enumerate(net.layer):
        if layer.type == "Python":  # type name: the check runs before any layer class is imported
            place = f"{locate(index)}: ".removeprefix(": ")
            code = f'the class "{layer.python_param.layer}" of the module "{layer.python_param.module}"'
            raise NetError(
                f'{place}layer "{layer.name}" (Python) would run {code}, but Python layers are switched off '
                "(CAFFE_PYTHON_LAYERS=0, --no-python-layers or python_layers=False); nothing was imported. Switch them "
                "on if you trust this code"
            )
