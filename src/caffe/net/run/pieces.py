"""A net whose layers run together in pieces which something else than torch runs as a whole."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext
from itertools import groupby

import torch
from torch import Tensor

from caffe.layers.base import Source, as_tuple
from caffe.net.build import Step
from caffe.net.run.loss_scale import LossScale
from caffe.net.run.partial import Partial
from caffe.net.run.rewrite import Call
from caffe.parameter_memory import WeightWatch

__all__ = ["Piece", "Pieces"]


_NOTHING = nullcontext()


class Piece:
    """Layers that run together: a function of the values that they read from outside. A subclass makes `run` fast."""

    def __init__(self, calls: Sequence[Call], needed: Collection[int]) -> None:
        made = [place for call in calls for place in call.writes]
        self.reads = sorted({place for call in calls for place, _ in call.reads}.difference(made))
        self.writes = [place for place in made if place in needed]
        self.backward = calls[0].backward
        self.layers = [call.layer for call in calls]
        self._calls = [(call.run, call.reads, call.writes) for call in calls]

    def compute(self, given: Sequence[Tensor]) -> list[Tensor]:
        """The values that are needed outside, of those at `reads`."""
        values = dict(zip(self.reads, given, strict=True))
        for run, reads, writes in self._calls:
            made = as_tuple(run(*[values[place].detach() if cut else values[place] for place, cut in reads]))
            values.update(zip(writes, made, strict=True))
        return [values[place] for place in self.writes]

    def run(self, given: list[Tensor], learns: bool) -> list[Tensor]:
        """The same; `learns` tells whether this is a step of training."""
        raise NotImplementedError

    @property
    def names(self) -> str:
        """Its layers for messages: the first and the last."""
        names = [f'"{layer.name}" ({layer.type})' for layer in self.layers]
        return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


class Pieces(Partial):
    """Base of the nets that run in pieces.

    Layers that are not `traceable` (those that bring data in, Python layers, losses and others that look at values) run
    as they are, between the pieces.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        name: str,
        wanted: Collection[str],
        precision: torch.dtype = torch.float32,
        scale: LossScale | None = None,
    ) -> None:
        super().__init__(steps, name, wanted, precision, scale)
        self._pieces = self._cut()
        self._watch = WeightWatch([blob.weights for step in steps for blob in step.layer.param_blobs])

    def outdated(self) -> str:
        """Why it must not run any more, since weights have changed; empty if it may."""
        raise NotImplementedError

    def _piece(self, calls: Sequence[Call], needed: Collection[int]) -> Piece:
        """A piece of these calls, of which the values at the places `needed` are read later."""
        raise NotImplementedError

    def _takes(self, call: Call) -> bool:
        """Whether a call may be part of a piece."""
        return call.layer.traceable

    def _cut(self) -> list[Call | Piece]:
        """The calls, neighbours that may be part of a piece in pieces."""
        wanted = self._wanted_places()
        pieces: list[Call | Piece] = []
        groups = [list(group) for _, group in groupby(self._calls, lambda call: (self._takes(call), call.backward))]
        for index, calls in enumerate(groups):
            later = {place for group in groups[index + 1 :] for call in group for place, _ in call.reads}
            pieces += [self._piece(calls, later | wanted)] if self._takes(calls[0]) else calls
        return pieces

    def _run(self, inputs: dict[str, Tensor], given: Sequence[Tensor] | None = None) -> list[Tensor]:
        grad = torch.is_grad_enabled()
        values = self._begin(given)
        for piece in self._pieces:
            if given is not None and isinstance(piece, Call) and isinstance(piece.layer, Source):
                continue
            with torch.set_grad_enabled(piece.backward) if grad else _NOTHING:
                made: Sequence[Tensor]
                if isinstance(piece, Piece):
                    made = piece.run([values[place] for place in piece.reads], grad)
                else:
                    made = self._made(piece, values, inputs)
            for place, value in zip(piece.writes, made, strict=True):
                values[place] = value
        return values
