"""A net through torch.compile."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Sequence
from itertools import count
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any, Self

import torch
from torch import Tensor

from caffe.errors import CaffeError, NetError
from caffe.net.build import Step
from caffe.net.run.loss_scale import LossScale
from caffe.net.run.pieces import Piece, Pieces
from caffe.net.run.rewrite import FROZEN, REWRITES, Call, Rewrite

__all__ = ["Compiled", "check_compiler"]

_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_number = count()
_RECOMPUTED = {"aggressive_recomputation": True, "is_non_builtin_to_include": True}
"""Backward makes what is cheap anew, but for our own operations, instead of reading masks that forward has written."""


class Compiled(Pieces):
    """A net whose layers run as code that torch.compile makes of them, at the first run and for each new shape.

    `frozen`: the weights become constants of the code, for inference.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        name: str,
        wanted: Collection[str],
        precision: torch.dtype = torch.float32,
        scale: LossScale | None = None,
        frozen: bool = False,
    ) -> None:
        check_compiler()
        self._frozen = frozen
        super().__init__(steps, name, wanted, precision, scale)
        self._ran = False

    def _rewrites(self) -> Sequence[Rewrite]:
        return FROZEN if self._frozen else REWRITES

    def with_more(self, names: Collection[str]) -> Self:
        wanted = self.wanted.union(names)
        return type(self)(self._steps, self.name, wanted, self._precision, self._scale, self._frozen)

    def outdated(self) -> str:
        changed = self._watch.changed()
        return "its weights have changed since it was compiled: it runs uncompiled" if changed and self._ran else ""

    def _piece(self, calls: Sequence[Call], needed: Collection[int]) -> Piece:
        return _Piece(calls, needed, self._frozen)

    def _run(self, inputs: dict[str, Tensor], given: Sequence[Tensor] | None = None) -> list[Tensor]:
        self._ran = True
        return super()._run(inputs, given)


class _Piece(Piece):
    """Layers that are compiled together."""

    def __init__(self, calls: Sequence[Call], needed: Collection[int], frozen: bool) -> None:
        super().__init__(calls, needed)
        self._frozen = frozen
        self._seen: list[list[tuple[int, ...]]] = []
        options: Any = (
            {"freezing": True} if frozen else {"fallback_random": True}
        )  # which draws as uncompiled code does
        self._compiled: Callable[..., Any] = torch.compile(
            _own_code(self.compute), dynamic=False, fullgraph=True, options=options
        )

    def run(self, given: list[Tensor], learns: bool) -> list[Tensor]:
        """The values, compiled in training or for inference; NetError names layers that cannot be compiled."""
        if not (learns or self._frozen):
            return self.compute(given)
        shapes = [tuple(value.shape) for value in given]
        try:
            if shapes in self._seen:
                return self._compiled(given)
            self._seen.append(shapes)
            with warnings.catch_warnings(), torch._functorch.config.patch(_RECOMPUTED):
                warnings.filterwarnings("ignore", message="The .grad attribute")  # which torch looks at itself
                return self._compiled(given)
        except CaffeError:
            raise
        except torch._dynamo.exc.TorchDynamoException as error:
            raise NetError(
                f"torch.compile cannot take the layers {self.names}; give the class of the one that stops it "
                f"`traceable = False`, so that it runs outside of what is compiled. torch says: {error}"
            ) from error


def _own_code(method: Any) -> MethodType:
    """The method with a code object of its own: torch counts by these how often something was compiled anew."""
    function = method.__func__
    code = function.__code__.replace(co_name=f"piece_{next(_number)}")
    return MethodType(FunctionType(code, function.__globals__, code.co_name), method.__self__)


def check_compiler() -> None:
    """Raise CaffeError unless there is a C++ compiler; choose where compiled code is kept, unless the user did.

    By default that is ~/.cache/cafetiere/inductor (XDG_CACHE_HOME counts), which, unlike torch's own choice, a restart
    of the machine leaves alone.
    """
    from torch._inductor import cpp_builder, exc
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    own = os.path.abspath(default_cache_dir())  # torch writes its choice into the variable, too
    if os.environ.get(_CACHE, own) == own:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        os.environ[_CACHE] = str(Path(root) / "cafetiere" / "inductor")
    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler as error:
        raise CaffeError(
            "compiling a net needs a C++ compiler, and none was found: install one (Debian, Ubuntu: apt install g++), "
            "name one in the environment variable CXX, or run without compiling"
        ) from error
