"""The parts of a net that is built: its steps, one for each layer, and what a solver updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from caffe.blob import Blob, ParamBlob
from caffe.layers.base import Layer
from caffe.layers.support.effects import Held, RandomState

__all__ = ["Graph", "History", "LastRun", "Learnable", "Step"]


@dataclass(slots=True)
class History:
    """What a layer's backward needs of its last run: the tensors, with what autograd recorded between them.

    `seen` holds each bottom's memory with its generation, and each parameter's place, at the time of the run. `params`
    are the trained parameters of the run, which may belong to another net by now. `random` and `buffers` are what the
    layer began with, where the run used them.
    """

    bottoms: list[Tensor]
    params: list[Tensor]
    tops: Sequence[Tensor]
    seen: list[Any]
    random: RandomState | None
    buffers: Held | None


@dataclass
class LastRun:
    """How a net ran last. All steps of a net have the same one."""

    stepwise: bool = True  # whether a step may have run by itself since the net last ran as one piece


@dataclass
class Step:
    """One layer in its place: what it reads and writes and which gradients it must give."""

    layer: Layer
    bottoms: list[Blob] = field(default_factory=list)
    tops: list[Blob] = field(default_factory=list)
    loss_weights: list[float] = field(default_factory=list)
    needs: list[bool] = field(default_factory=list)  # for each bottom
    forced: list[bool] = field(default_factory=list)  # for each bottom: whether it is needed by `force_backward` only
    params: list[ParamBlob] = field(default_factory=list)  # those that get a gradient
    backward: bool = False
    history: History | str = ""  # of the last run; or why there is none
    in_place: bool = False  # whether a top is one of the bottoms
    shares: bool = False  # whether the tops are the bottom itself, perhaps in another shape
    missing_diffs: bool = False  # whether the last run did not keep the tops' diffs
    weighted: bool = False  # whether a top counts in the loss
    last_run: LastRun = field(default_factory=LastRun)
    wary: bool = False  # whether to look at the memory of the tops: somebody keeps it, or the layer is a user's own

    def shape_top(self, blob: Blob, shape: tuple[int, ...]) -> None:
        """Give a top its shape, and where the layer has its tops share the bottom's data, that data."""
        if self.shares and not blob.alone:
            blob.share(self.bottoms[0], shape, diff=self.layer.shares_diff)
        elif blob.shape != shape:
            blob.reshape(*shape)

    @property
    def bottom_names(self) -> list[str]:
        return [blob.name for blob in self.bottoms]

    @property
    def top_names(self) -> list[str]:
        return [blob.name for blob in self.tops]


@dataclass
class Learnable:
    """A blob that a solver updates, with the multipliers of its rate and of its weight decay."""

    blob: ParamBlob
    lr_mult: float
    decay_mult: float
    layer: str
    index: int
    name: str = ""
    has_lr: bool = False
    has_decay: bool = False

    @property
    def tensor(self) -> Tensor:
        """The parameter, or the buffer of a blob that is not trained."""
        return self.blob.parameter


@dataclass
class Graph:
    """A net that is built."""

    steps: list[Step] = field(default_factory=list)
    blobs: list[Blob] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    learnable: list[Learnable] = field(default_factory=list)
