"""Trial runs on a few items stored in a file, for overfitting them, and without the time of reading data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caffe.doctor.changes import Change
from caffe.doctor.trial import Outcome
from caffe.doctor.view import View
from caffe.layers import is_a
from caffe.layers.activation import Dropout

__all__ = ["ByHeart", "Kept", "keep"]

ITEMS = 20
_RIGHT, _FALLEN = 0.9, 0.5


@dataclass(frozen=True)
class Kept(Change):
    """Let the data layers read the items of a file, and disable tests.

    `plain` also removes weight decay and dropout. For trials only: this change is never written to the user's files.
    """

    layers: tuple[int, ...] = ()
    path: str = ""
    items: int = ITEMS
    plain: bool = True

    def apply(self, solver: Any, net: Any) -> None:
        for name in ("test_iter", "test_state", "test_net", "test_net_param"):
            solver.ClearField(name)
        for index in self.layers:
            spec = net.layer[index]
            head = type(spec)(name=spec.name, type="ArrayData", top=spec.top, include=spec.include)
            head.array_data_param.source.append(self.path)
            head.array_data_param.batch_size = self.items
            spec.CopyFrom(head)
        if self.plain:
            solver.weight_decay = 0
            for spec in net.layer:
                if is_a(spec.type, Dropout):
                    spec.dropout_param.dropout_ratio = 0


def keep(view: View, arrays: Mapping[str, np.ndarray], items: int, plain: bool, folder: Path) -> Kept | None:
    """Create the change that keeps the first items of these arrays; None if data layers have other arrays."""
    nodes = [node for node in view.nodes if not node.spec.bottom and node.spec.top]
    if not nodes or any(top not in arrays for node in nodes for top in node.spec.top):
        return None
    items = min([items, *(len(arrays[top]) for node in nodes for top in node.spec.top)])
    path = folder / f"kept_{items}.npz"
    np.savez(path, **{top: arrays[top][:items] for node in nodes for top in node.spec.top})  # type: ignore[arg-type]
    return Kept(f"{items} items", (), tuple(node.index for node in nodes), str(path), items, plain)


@dataclass(frozen=True)
class ByHeart:
    """The result of a run on a few items."""

    run: Outcome | None
    items: int = 0

    @property
    def learned(self) -> bool:
        """Whether the net fits the items."""
        if self.run is None or self.run.error or self.run.failed is not None:
            return False
        if self.run.classes and self.run.right == self.run.right:
            return self.run.right >= _RIGHT
        return self.run.last < _FALLEN * self.run.first

    @property
    def text(self) -> str:
        """A short description of the result."""
        if self.run is None:
            return "not tried: no time, or the items cannot be stored"
        return f"{self.items} items without weight decay and dropout: {self.run.text}"
