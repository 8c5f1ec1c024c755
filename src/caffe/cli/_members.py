"""`caffe train -members`: the runs whose nets become an ensemble."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from caffe.errors import CaffeError
from caffe.proto import state as states

__all__ = ["check", "done", "each", "how_to_score"]


def check(param: Any, solver: str, snapshot: str) -> None:
    """Raise an error for a solver that leaves no files of its members, and a state that only one can have."""
    if snapshot not in ("", "last", "auto"):
        raise CaffeError(f"-snapshot {snapshot}: with -members, `-snapshot auto` resumes each from its newest one")
    if not param.HasField("snapshot_prefix"):
        raise CaffeError(f"{solver}: -members needs snapshot_prefix, which says where the nets are written")
    if not param.snapshot_after_train:
        raise CaffeError(f"{solver}: -members writes each net at its end; remove snapshot_after_train: false")


def each(param: Any, count: int, plot: str) -> Iterator[tuple[int, Any, str]]:
    """Number, parameters and picture file of each member: seeds from that of the solver (1 without one) upwards."""
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
    """The command that scores the members together."""
    end = ".h5" if param.snapshot_format == param.HDF5 else ""
    weights = f"'{param.snapshot_prefix}_member*_iter_{param.max_iter}.caffemodel{end}'"
    net = param.net or param.train_net or "NET"
    return f"{count} members are trained; score them: caffe test -model {net} -weights {weights} -ensemble"
