"""`caffe train -members`: trains the nets of an ensemble."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from caffe.errors import CaffeError
from caffe.proto import state as states

__all__ = ["check_members", "done", "each", "how_to_score"]


def check_members(param: Any, solver: str, snapshot: str) -> None:
    """Raise an error for a solver that does not save the nets, and for a state that fits only one member."""
    if snapshot not in ("", "last", "auto"):
        raise CaffeError(
            f"-snapshot {snapshot}: with -members, use `-snapshot auto` to resume each member from its newest snapshot"
        )
    if not param.HasField("snapshot_prefix"):
        raise CaffeError(f"{solver}: -members needs snapshot_prefix, the path prefix of the nets")
    if not param.snapshot_after_train:
        raise CaffeError(
            f"{solver}: -members saves each net at the end of training; remove snapshot_after_train: false"
        )


def each(param: Any, count: int, plot: str) -> Iterator[tuple[int, Any, str]]:
    """Yield number, parameters and plot file of each member. The seeds count up from the solver's (1 if not set)."""
    first = param.random_seed if param.random_seed >= 0 else 1
    for number in range(1, count + 1):
        own = type(param)()
        own.CopyFrom(param)
        own.random_seed = first + number - 1
        own.snapshot_prefix = f"{param.snapshot_prefix}_member{number}"
        picture = Path(plot)
        yield number, own, str(picture.with_stem(f"{picture.stem}_member{number}")) if plot else ""


def done(param: Any, state: str) -> bool:
    """Whether a solver state is that of the last iteration."""
    head, _ = states.read(state)
    return bool(head.iter >= param.max_iter)


def how_to_score(param: Any, count: int) -> str:
    """Return the message with the command that scores the ensemble."""
    end = ".h5" if param.snapshot_format == param.HDF5 else ""
    weights = f"'{param.snapshot_prefix}_member*_iter_{param.max_iter}.caffemodel{end}'"
    net = param.net or param.train_net or "NET"
    return f"{count} members are trained; score them: caffe test -model {net} -weights {weights} -ensemble"
