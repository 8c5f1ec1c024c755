"""The members of an ensemble: the net and weights of each, and loading them."""

from __future__ import annotations

import glob
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caffe.errors import ArgumentError
from caffe.proto import weight_average

__all__ = ["Member", "assign", "load", "pair"]


@dataclass(frozen=True)
class Member:
    """A net definition (a path or a NetParameter) with a file of weights.

    For a .solverstate, the moving average in it is used.
    """

    model: Any
    weights: str

    @property
    def name(self) -> str:
        """The name of the weight file, for tables."""
        return Path(self.weights).name


def pair(models: Sequence[Any], weights: Sequence[str | Path]) -> list[Member]:
    """Pair nets with weight files: one net for all files, or one net for each.

    A pattern such as `lenet_member*.caffemodel` is replaced by the matching files, in the order of their numbers.
    """
    paths = [path for each in weights for path in _expanded(str(each))]
    if not models or not paths:
        raise ArgumentError("an ensemble needs a net definition and the weights of each member; one of them is missing")
    if len(models) not in (1, len(paths)):
        raise ArgumentError(
            f"an ensemble has {len(models)} nets and {len(paths)} weight files; expected one net, or one for each"
        )
    nets = list(models) * (len(paths) if len(models) == 1 else 1)
    return [Member(net, path) for net, path in zip(nets, paths, strict=True)]


def load(net: Any, path: str) -> None:
    """Load the weights of a member into a net."""
    if ".solverstate" in Path(path).name:
        assign(net, *weight_average.read(path))
    else:
        net.copy_from(path)


def assign(net: Any, spec: Any, arrays: Mapping[str, Any]) -> None:
    """Copy into a net the weights that `weight_average` read or averaged."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.h5")
        weight_average.save(path, spec, dict(arrays))
        net.copy_from(path)


def _expanded(path: str) -> list[str]:
    if not glob.has_magic(path) or Path(path).exists():
        return [path]
    found = sorted(glob.glob(path), key=_numbers_by_value)
    if not found:
        raise ArgumentError(f'no weight file matches the pattern "{path}" (from {Path.cwd()})')
    return found


def _numbers_by_value(path: str) -> list[tuple[int, str]]:
    """Return a sort key that puts iter_9 before iter_10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path)]
