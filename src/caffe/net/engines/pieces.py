"""Pieces: consecutive calls of a plan that another engine than eager torch runs as a whole.

Layers that are not `traceable` (data layers, Python layers, losses and others that read values) run in eager mode
between the pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from itertools import groupby

import torch
from torch import Tensor

from caffe.layers.base import Source, as_tuple
from caffe.net.engines.engine import tops_made
from caffe.net.plan.plan import Plan
from caffe.net.plan.rewrite import Call

__all__ = ["Piece", "PieceRun", "cut", "run_pieces"]

_NOTHING = nullcontext()

PieceRun = Callable[[list[Tensor], bool], list[Tensor]]
"""Takes the input values of a piece, and whether this is a training step. Returns the output values."""


class Piece:
    """Layers that run together, as a function of the values that they read from outside. An engine sets `run`."""

    def __init__(self, calls: Sequence[Call], needed: Collection[int]) -> None:
        made = [place for call in calls for place in call.writes]
        self.calls = list(calls)
        self.reads = sorted({place for call in calls for place, _ in call.reads}.difference(made))
        self.writes = [place for place in made if place in needed]
        self.backward = calls[0].backward
        self.layers = [call.layer for call in calls]
        self.run: PieceRun = lambda given, learns: self.compute(given)
        self._program = [(call.run, call.reads, call.writes) for call in calls]

    def compute(self, given: Sequence[Tensor]) -> list[Tensor]:
        """Compute the values that are needed outside from those at `reads`, with torch."""
        values = dict(zip(self.reads, given, strict=True))
        for run, reads, writes in self._program:
            made = as_tuple(run(*[values[place].detach() if cut else values[place] for place, cut in reads]))
            values.update(zip(writes, made, strict=True))
        return [values[place] for place in self.writes]

    @property
    def names(self) -> str:
        """The first and last layer of the piece, for messages."""
        names = [f'"{layer.name}" ({layer.type})' for layer in self.layers]
        return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def cut(plan: Plan, takes: Callable[[Call], bool], make_run: Callable[[Piece], PieceRun]) -> list[Call | Piece]:
    """Group consecutive calls for which `takes` is true into pieces. `make_run` creates the function of a piece."""
    wanted = plan.wanted_places
    pieces: list[Call | Piece] = []
    groups = [list(group) for _, group in groupby(plan.calls, lambda call: (takes(call), call.backward))]
    for index, calls in enumerate(groups):
        if not takes(calls[0]):
            pieces += calls
            continue
        later = {place for group in groups[index + 1 :] for call in group for place, _ in call.reads}
        piece = Piece(calls, later | wanted)
        piece.run = make_run(piece)
        pieces.append(piece)
    return pieces


def run_pieces(
    plan: Plan, pieces: Sequence[Call | Piece], inputs: Mapping[str, Tensor], given: Sequence[Tensor] | None
) -> list[Tensor]:
    """Run calls and pieces; returns the values at all places. See Engine.run."""
    grad = torch.is_grad_enabled()
    values = plan.begin(given)
    for piece in pieces:
        if given is not None and isinstance(piece, Call) and isinstance(piece.layer, Source):
            continue
        with torch.set_grad_enabled(piece.backward) if grad else _NOTHING:
            made: Sequence[Tensor]
            if isinstance(piece, Piece):
                made = piece.run([values[place] for place in piece.reads], grad)
            else:
                made = tops_made(piece, values, inputs)
        for place, value in zip(piece.writes, made, strict=True):
            values[place] = value
    return values
