"""The engine that compiles a net with torch.compile."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor

from caffe import torch_internals
from caffe.errors import CaffeError, NetError
from caffe.net.engines.engine import NO_INPUTS, Engine
from caffe.net.engines.pieces import Piece, cut, run_pieces
from caffe.net.plan.plan import Plan
from caffe.net.plan.rewrite import FROZEN, REWRITES
from caffe.parameter_memory import WeightWatch

__all__ = ["Compiled", "check_compiler"]

_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_number = count()
_RECOMPUTED = {"aggressive_recomputation": True, "is_non_builtin_to_include": True}
"""Backward recomputes cheap values instead of reading masks that forward saved, except for our custom operators."""


class Compiled(Engine):
    """Runs layers with torch.compile, which compiles at the first run and for each new shape.

    With `frozen` the weights become constants in the code, for inference.
    """

    def __init__(self, frozen: bool = False) -> None:
        check_compiler()
        self._frozen = frozen
        self._ran = False
        self.rewrites = FROZEN if frozen else REWRITES

    def prepare(self, plan: Plan) -> None:
        self._plan = plan
        self._weight_watch = WeightWatch([blob.weights for step in plan.steps for blob in step.layer.param_blobs])
        self.pieces = cut(plan, lambda call: call.layer.traceable, lambda piece: _CompiledRun(piece, self._frozen))

    def outdated(self) -> str:
        changed = self._weight_watch.changed()
        return "its weights have changed since it was compiled: it runs uncompiled" if changed and self._ran else ""

    def run(self, inputs: Mapping[str, Tensor] = NO_INPUTS, given: Sequence[Tensor] | None = None) -> list[Tensor]:
        self._ran = True
        return run_pieces(self._plan, self.pieces, inputs, given)


class _CompiledRun:
    """Runs a piece as one compiled function."""

    def __init__(self, piece: Piece, frozen: bool) -> None:
        self._piece, self._frozen = piece, frozen
        self._seen: list[list[tuple[int, ...]]] = []
        options: Any = (
            {"freezing": True} if frozen else {"fallback_random": True}
        )  # draws the same random numbers as uncompiled code
        self._compiled: Callable[..., Any] = torch.compile(
            _own_code(piece.compute), dynamic=False, fullgraph=True, options=options
        )

    def __call__(self, given: list[Tensor], learns: bool) -> list[Tensor]:
        """Compute the values, for training or inference. A NetError names layers that cannot be compiled."""
        if not (learns or self._frozen):
            return self._piece.compute(given)
        shapes = [tuple(value.shape) for value in given]
        try:
            if shapes in self._seen:
                return self._compiled(given)
            self._seen.append(shapes)
            with warnings.catch_warnings(), torch_internals.functorch_settings(_RECOMPUTED):
                warnings.filterwarnings("ignore", message="The .grad attribute")  # torch itself reads it
                return self._compiled(given)
        except CaffeError:
            raise
        except torch_internals.compile_errors() as error:
            raise NetError(
                f"torch.compile cannot compile the layers {self._piece.names}; set `traceable = False` in the class of "
                f"the layer that causes this, so that it runs uncompiled. torch's error: {error}"
            ) from error


def _own_code(method: Any) -> MethodType:
    """A copy of the method with its own code object, since torch counts recompilations per code object."""
    function = method.__func__
    code = function.__code__.replace(co_name=f"piece_{next(_number)}")
    return MethodType(FunctionType(code, function.__globals__, code.co_name), method.__self__)


def check_compiler() -> None:
    """Raise CaffeError if there is no C++ compiler. Set the cache folder for compiled code, unless the user has.

    The default is ~/.cache/cafetiere/inductor (or below XDG_CACHE_HOME). Unlike torch's default, it survives a restart
    of the machine.
    """
    own = os.path.abspath(torch_internals.default_cache())  # torch also stores its default in the variable
    if os.environ.get(_CACHE, own) == own:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        os.environ[_CACHE] = str(Path(root) / "cafetiere" / "inductor")
    if torch_internals.cpp_compiler() is None:
        raise CaffeError(
            "compiling a net needs a C++ compiler, and none was found: install one (Debian, Ubuntu: apt install g++), "
            "name one in the environment variable CXX, or run without compiling"
        )
