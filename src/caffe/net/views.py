"""Attributes of a net that pycaffe's scripts read (names, graph, loss weights), and callbacks."""

from __future__ import annotations

from abc import ABC
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from caffe.blob import Blob
from caffe.blob_vec import BlobVec
from caffe.errors import ArgumentType, FixedError
from caffe.layers.base import Layer, Source
from caffe.names import Named
from caffe.net.graph.step import Learnable, Step
from caffe.net.measure.summary import Summary
from caffe.parallel.group import Member
from caffe.uncopied import Uncopied

__all__ = ["Views"]


_FIXED = {"blobs", "params", "layers", "layer_names", "inputs", "outputs"}


class Views(Uncopied, ABC):
    """Base of `Net`: attributes that are derived from its steps. Names with an underscore are pycaffe's."""

    instead = (
        'build a second one, other = caffe.Net("net.prototxt", phase), and give it these weights: '
        'net.save("net.caffemodel"); other.copy_from("net.caffemodel"), or one memory for both: other.share_with(net). '
        "A module of caffe.torch can be copied and pickled"
    )

    name: str
    phase: int
    path: Path | None
    steps: list[Step]
    layers: list[Layer]
    layer_names: list[str]
    blobs: OrderedDict[str, Blob]
    inputs: list[str]
    outputs: list[str]
    learnable: list[Learnable]
    params: OrderedDict[str, BlobVec]
    callbacks: dict[str, list[Callable[[int], Any]]]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and name in vars(self):
            way = 'write into an array of it, as in net.blobs["data"].data[...] = array, or build another net'
            raise FixedError(f"net.{name} cannot be replaced: it follows from the prototxt; {way}")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        return Summary(self, arithmetic=False).text()

    def _repr_html_(self) -> str:
        return Summary(self).html()

    @property
    def layer_dict(self) -> OrderedDict[str, Layer]:
        """Layers by name."""
        return Named(zip(self.layer_names, self.layers, strict=True), "layer")

    @property
    def top_names(self) -> OrderedDict[str, list[str]]:
        """The names of each layer's tops."""
        return Named(((step.layer.name, step.top_names) for step in self.steps), "layer")

    @property
    def bottom_names(self) -> OrderedDict[str, list[str]]:
        """The names of each layer's bottoms, including automatic splits."""
        return Named(((step.layer.name, step.bottom_names) for step in self.steps), "layer")

    @property
    def blob_loss_weights(self) -> OrderedDict[str, float]:
        """The loss weight of each blob, which is 0 for most."""
        weights = Named((name, 0.0) for name in self.blobs)
        for step in self.steps:
            weights.update({name: w for name, w in zip(step.top_names, step.loss_weights, strict=True) if w})
        return weights

    @property
    def sources(self) -> dict[str, Source]:
        """The data layers by name. If several share a name, the last one."""
        return {layer.name: layer for layer in self._sources}

    @property
    def _sources(self) -> list[Source]:
        return [layer for layer in self.layers if isinstance(layer, Source)]

    # -- callbacks: functions of a layer's index, called around each layer's run -----------------------------------

    def before_forward(self, callback: Callable[[int], Any]) -> None:
        """Call `callback(layer index)` before each layer runs forward."""
        self._add_callback("before_forward", callback)

    def after_forward(self, callback: Callable[[int], Any]) -> None:
        """Call `callback(layer index)` after each layer has run forward."""
        self._add_callback("after_forward", callback)

    def before_backward(self, callback: Callable[[int], Any]) -> None:
        """Call `callback(layer index)` before each layer runs backward."""
        self._add_callback("before_backward", callback)

    def after_backward(self, callback: Callable[[int], Any] | Member) -> None:
        """Call `callback(layer index)` after each layer has run backward.

        A `caffe.NCCL`, by which Caffe's scripts ask to reduce gradients layer by layer, changes nothing here: whether a
        solver does so follows from its `layer_wise_reduce`.
        """
        if not isinstance(callback, Member):
            self._add_callback("after_backward", callback)

    def _add_callback(self, when: str, callback: Callable[[int], Any]) -> None:
        if not callable(callback):
            raise ArgumentType(f"{when}: expected a function of a layer's number, got {callback!r}")
        self.callbacks[when].append(callback)

    # -- pycaffe's internal names, which scripts use nevertheless --------------------------------------------------

    @property
    def _layer_names(self) -> list[str]:
        return self.layer_names

    @property
    def _blob_names(self) -> list[str]:
        return list(self.blobs)

    @property
    def _blobs(self) -> list[Blob]:
        return list(self.blobs.values())

    @property
    def _blob_loss_weights(self) -> list[float]:
        return list(self.blob_loss_weights.values())

    @property
    def _inputs(self) -> list[int]:
        return [self._blob_names.index(name) for name in self.inputs]

    @property
    def _outputs(self) -> list[int]:
        return [self._blob_names.index(name) for name in self.outputs]

    def _top_ids(self, layer: int) -> list[int]:
        return [self._blob_names.index(name) for name in self.steps[layer].top_names]

    def _bottom_ids(self, layer: int) -> list[int]:
        return [self._blob_names.index(name) for name in self.steps[layer].bottom_names]
