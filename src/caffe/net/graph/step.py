"""The parts of a built net: one step for each layer, and the parameters that a solver updates."""

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
    """What a layer's backward needs from its last run: the tensors and autograd's graph between them.

    `seen` holds the memory and generation of each bottom and the address of each parameter, at the time of the run.
    `params` are the trained parameters of the run, which may since belong to another net. `random` and `buffers` are
    the initial generator states and buffers, if the run used them.
    """

    bottoms: list[Tensor]
    params: list[Tensor]
    tops: Sequence[Tensor]
    seen: list[Any]
    random: RandomState | None
    buffers: Held | None


@dataclass
class LastRun:
    """How a net ran last. All steps of a net share one object."""

    stepwise: bool = True  # whether a single step may have run since the last run of the whole net


@dataclass
class Step:
    """A layer in a net: the blobs that it reads and writes, and the gradients that it must compute."""

    layer: Layer
    bottoms: list[Blob] = field(default_factory=list)
    tops: list[Blob] = field(default_factory=list)
    loss_weights: list[float] = field(default_factory=list)
    needs: list[bool] = field(default_factory=list)  # for each bottom
    forced: list[bool] = field(default_factory=list)  # for each bottom: whether only `force_backward` needs it
    params: list[ParamBlob] = field(default_factory=list)  # parameters that get a gradient
    backward: bool = False
    history: History | str = ""  # of the last run, or the reason why there is none
    in_place: bool = False  # whether a top is one of the bottoms
    shares: bool = False  # whether the tops are views of the bottom
    missing_diffs: bool = False  # whether the last run did not keep the tops' diffs
    weighted: bool = False  # whether a top has a loss weight
    last_run: LastRun = field(default_factory=LastRun)
    divided: str = ""  # why the layer cannot run by itself: its blobs or the layers are divided over processes
    known_shapes: dict[Any, list[tuple[int, ...]]] = field(default_factory=dict)  # of the tops, by those of the bottoms
    wary: bool = False  # whether to check the memory of the tops: it is referenced elsewhere, or the layer is a user's

    def shape_top(self, blob: Blob, shape: tuple[int, ...]) -> None:
        """Set the shape of a top, and its data if the layer's tops share the bottom's data."""
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
    """A blob that a solver updates, with the multipliers of its learning rate and weight decay."""

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
    """A built net."""

    steps: list[Step] = field(default_factory=list)
    blobs: list[Blob] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    learnable: list[Learnable] = field(default_factory=list)
