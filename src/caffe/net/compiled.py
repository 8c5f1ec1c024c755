"""A net through torch.compile."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Sequence
from itertools import count, groupby
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any, Self

import torch
from torch import Tensor

from caffe.errors import CaffeError, NetError
from caffe.layers.base import Source, as_tuple
from caffe.net.build import Step
from caffe.net.loss_scale import LossScale
from caffe.net.partial import Partial
from caffe.net.rewrite import FROZEN, REWRITES, Call, Rewrite
from caffe.writes import Watch

__all__ = ["Compiled", "check_compiler"]

_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_number = count()
_RECOMPUTED = {"aggressive_recomputation": True, "is_non_builtin_to_include": True}
"""Backward makes what is cheap anew, but for our own operations, instead of reading masks that forward has written."""


class Compiled(Partial):
    """A net whose layers run as code that torch.compile makes of them, at the first run and for each new shape.

    Layers whose class says `traceable = False` (those that bring data in, Python layers, losses and others that look at
    values) run as they are, between the pieces that are compiled. `frozen`: the weights become constants of the code,
    for inference; `outdated` tells whether they have changed since.
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
        self._pieces = self._cut()
        self._watch = Watch([tensor for step in steps for tensor in step.layer.tensors])
        self._ran = False

    def _rewrites(self) -> Sequence[Rewrite]:
        return FROZEN if self._frozen else REWRITES

    def with_more(self, names: Collection[str]) -> Self:
        wanted = self.wanted.union(names)
        return type(self)(self._steps, self.name, wanted, self._precision, self._scale, self._frozen)

    def outdated(self) -> bool:
        """Whether weights have changed since they became constants."""
        changed = self._watch.changed()
        return self._ran and changed

    def _cut(self) -> list[Call | _Piece]:
        """The calls, those that can be compiled together in pieces."""
        wanted = self._wanted_places()
        pieces: list[Call | _Piece] = []
        groups = [list(group) for _, group in groupby(self._calls, lambda call: (call.layer.traceable, call.backward))]
        for index, calls in enumerate(groups):
            later = {place for group in groups[index + 1 :] for call in group for place, _ in call.reads}
            pieces += [_Piece(calls, later | wanted, self._frozen)] if calls[0].layer.traceable else calls
        return pieces

    def _run(self, inputs: dict[str, Tensor], given: Sequence[Tensor] | None = None) -> list[Tensor]:
        self._ran = True
        grad = torch.is_grad_enabled()
        values = self._begin(given)
        for piece in self._pieces:
            with torch.set_grad_enabled(grad and piece.backward):
                made: Sequence[Tensor]
                if isinstance(piece, _Piece):
                    made = piece.run([values[place] for place in piece.reads], compiled=grad or self._frozen)
                elif given is not None and isinstance(piece.layer, Source):
                    continue
                else:
                    made = self._made(piece, values, inputs)
            for place, value in zip(piece.writes, made, strict=True):
                values[place] = value
        return values


class _Piece:
    """Layers that are compiled together: a function of the values that they read from outside."""

    def __init__(self, calls: Sequence[Call], needed: Collection[int], frozen: bool) -> None:
        made = [place for call in calls for place in call.writes]
        self.reads = sorted({place for call in calls for place, _ in call.reads}.difference(made))
        self.writes = [place for place in made if place in needed]
        self.backward = calls[0].backward
        self.layers = [call.layer for call in calls]
        self._calls = [(call.run, call.reads, call.writes) for call in calls]
        self._seen: list[list[tuple[int, ...]]] = []
        options: Any = (
            {"freezing": True} if frozen else {"fallback_random": True}
        )  # which draws as uncompiled code does
        self._compiled: Callable[..., Any] = torch.compile(
            _own_code(self.compute), dynamic=False, fullgraph=True, options=options
        )

    def compute(self, given: list[Tensor]) -> list[Tensor]:
        """The values that are needed outside."""
        values = dict(zip(self.reads, given, strict=True))
        for run, reads, writes in self._calls:
            made = as_tuple(run(*[values[place].detach() if cut else values[place] for place, cut in reads]))
            values.update(zip(writes, made, strict=True))
        return [values[place] for place in self.writes]

    def run(self, given: list[Tensor], compiled: bool) -> list[Tensor]:
        """The same, compiled or not; NetError names the layers where they cannot be compiled."""
        if not compiled:
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
            names = [f'"{layer.name}" ({layer.type})' for layer in self.layers]
            between = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
            raise NetError(
                f"torch.compile cannot take the layers {between}; give the class of the one that stops it "
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
