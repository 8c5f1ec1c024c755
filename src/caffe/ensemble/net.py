"""`caffe.Ensemble`: several nets with the interface of one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caffe.blob import Blob
from caffe.ensemble import combine as combining
from caffe.ensemble.members import load, pair
from caffe.errors import ArgumentError, NetError
from caffe.names import Results, unknown
from caffe.net import Net, batches
from caffe.proto import caffe_pb2

__all__ = ["Ensemble"]


class Ensemble:
    """Several nets whose outputs are combined, with the inference interface of a `Net`.

        ensemble = caffe.Ensemble("deploy.prototxt", ["a.caffemodel", "b.caffemodel", "c.caffemodel"])
        ensemble.blobs["data"].data[...] = image
        probabilities = ensemble.forward()["prob"]

    `model` is a net definition for all members, or a list with one for each; all must have the same inputs and outputs.
    `weights` are the members' files; for a .solverstate, the moving average in it is used. `combine` selects how the
    tops of Softmax layers are combined (`caffe.ensemble.METHODS`); the method "weights" requires `member_weights`. All
    other outputs are the mean of the members' outputs, weighted by `member_weights` if given.

    `inputs`, `outputs`, `phase` and `blobs` are those of the first member. `forward` copies its inputs to the other
    members. `members` is the list of nets. Raises ArgumentError and NetError, and the errors of building a `Net`.
    """

    def __init__(
        self,
        model: str | Path | Any | Sequence[Any],
        weights: Sequence[str | Path],
        combine: str = "probabilities",
        member_weights: Sequence[float] | None = None,
        device: torch.device | str | None = None,
        python_layers: bool | None = None,
    ) -> None:
        combining.check_method(combine)
        if isinstance(weights, (str, Path)):
            raise ArgumentError(f'weights is "{weights}"; expected a list with the file of each member')
        models = list(model) if isinstance(model, (list, tuple)) else [model]
        chosen = pair(models, weights)
        if (combine == "weights") != (member_weights is not None) and combine != "probabilities":
            raise ArgumentError(f'combine is "{combine}": member_weights are for "weights" only, and needed there')
        self.method = "weights" if member_weights is not None else combine
        self._shares = _shares(member_weights, len(chosen))
        self.members: list[Net] = []
        try:
            for member in chosen:
                net = Net(member.model, caffe_pb2.TEST, device=device, python_layers=python_layers)
                self.members.append(net)
                load(net, member.weights)
                self._check(net)
        except BaseException:
            self.close()
            raise

    def _check(self, net: Net) -> None:
        first = self.members[0]
        if not net.inputs:
            raise NetError(
                f'net "{net.name}" reads its own data; an Ensemble needs nets with inputs, as deploy.prototxt files '
                "have. `caffe test -ensemble` scores nets with data layers"
            )
        for kind in ("inputs", "outputs"):
            mine, other = getattr(first, kind), getattr(net, kind)
            if set(mine) != set(other):
                raise NetError(f"the members of an ensemble must have the same {kind}: {mine} and {other}")
        for name in net.inputs:
            if first.blobs[name].shape != net.blobs[name].shape:
                shapes = f"{tuple(first.blobs[name].shape)} and {tuple(net.blobs[name].shape)}"
                raise NetError(f'the members\' input "{name}" has the shapes {shapes}; expected one shape')

    # -- as a Net --------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of the first member."""
        return self.members[0].name

    @property
    def phase(self) -> int:
        """Always TEST."""
        return self.members[0].phase

    @property
    def inputs(self) -> list[str]:
        """The names of the inputs."""
        return self.members[0].inputs

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs."""
        return self.members[0].outputs

    @property
    def blobs(self) -> OrderedDict[str, Blob]:
        """The first member's blobs. Its inputs are the inputs of the ensemble."""
        return self.members[0].blobs

    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> dict[str, np.ndarray]:
        """Run all members, and combine their outputs and the blobs named in `blobs`.

        Keyword arguments are arrays for the inputs. Raises NetError for `start` and `end`, because members always run
        as a whole.
        """
        if start is not None or end is not None:
            raise NetError("an ensemble always runs whole members; use `ensemble.members[0]` to run from or to a layer")
        first, *others = self.members
        for name in blobs or []:
            for net in self.members:
                if name not in net.blobs:
                    raise unknown("blob", name, net.blobs)
        found = [first.forward(blobs=blobs, **kwargs)]
        for net in others:
            for name in first.inputs:
                if net.blobs[name].shape != first.blobs[name].shape:
                    net.blobs[name].reshape(*first.blobs[name].shape)
                net.blobs[name].data[...] = first.blobs[name].data
            found.append(net.forward(blobs=blobs))
        names = list(dict.fromkeys([*first.outputs, *(blobs or [])]))
        return Results((name, self._combined(name, [each[name] for each in found])) for name in names)

    forward_all = batches.forward_all

    def reshape(self) -> None:
        """Reshape all blobs to match the shapes of the inputs."""
        for net in self.members:
            for name in self.inputs:
                net.blobs[name].reshape(*self.blobs[name].shape)
            net.reshape()

    def optimize(self, keep: Sequence[str] = (), compile: bool = False, engine: str = "torch") -> None:
        """Call `Net.optimize` on each member."""
        for net in self.members:
            net.optimize(keep, compile, engine)

    def close(self) -> None:
        """Close the members."""
        for net in self.members:
            net.close()

    def _combined(self, name: str, arrays: Sequence[np.ndarray]) -> np.ndarray:
        if len({array.shape for array in arrays}) > 1:
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise NetError(f'the members\' blob "{name}" has the shapes {shapes}; expected one shape')
        axis = self._softmax_axis(name)
        if axis is None:
            mean: np.ndarray = np.tensordot(self._shares, np.stack(arrays).astype(np.float64), 1)
            return mean.astype(np.float32)
        moved = [np.moveaxis(array, axis, -1) for array in arrays]
        result = combining.combine(moved, self.method, self._shares.tolist())
        return np.ascontiguousarray(np.moveaxis(result, -1, axis).astype(np.float32))

    def _softmax_axis(self, name: str) -> int | None:
        """Return the class axis if the blob is made by a Softmax layer in every member."""
        axes = set()
        for net in self.members:
            makers = [step.layer for step in net.steps if name in step.top_names]
            axes.add(int(makers[-1].spec.softmax_param.axis) if makers and makers[-1].probabilities else None)
        return axes.pop() if len(axes) == 1 else None


def _shares(weights: Sequence[float] | None, count: int) -> np.ndarray:
    if weights is None:
        return np.full(count, 1 / count)
    if len(weights) != count:
        raise ArgumentError(f"member_weights has {len(weights)} numbers for {count} members")
    return combining.normalized(weights)
