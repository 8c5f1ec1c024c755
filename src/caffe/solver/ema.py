"""A moving average of the weights, kept beside them in training and put in their place for tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caffe import torch_internals
from caffe.errors import SolverError
from caffe.net.graph.step import Learnable
from caffe.proto import state as states
from caffe.proto import weights

__all__ = ["MovingAverage"]


class MovingAverage:
    """The exponential moving average of all learnable blobs, batch statistics among them.

        average <- weights                                   after the first update
        average <- decay average + (1 - decay) weights       after each later one

    A `decay` of 0 stands for no average: `tensors` stays None and everything here does nothing.
    Source: Polyak & Juditsky, 1992; torch.optim.swa_utils.AveragedModel counts alike.
    """

    def __init__(self, decay: float, learnable: Sequence[Learnable]) -> None:
        self.decay = decay
        self.tensors: list[Tensor] | None = None
        self._learnable = learnable
        self._swapped = 0  # blobs of the net, from the first on, that hold the average and not their own weights

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights as they are after an update into the average."""
        if not self.decay:
            return
        current = [entry.tensor.detach() for entry in self._learnable]
        if self.tensors is None:
            self.tensors = [tensor.clone() for tensor in current]
        else:
            torch_internals.foreach_lerp(self.tensors, current, 1 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the net the averaged weights, and at the end those that it had before; blocks may lie in each other."""
        with self._in_net(averaged=True):
            yield

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Give the net its own weights, and at the end those that it had before."""
        with self._in_net(averaged=False):
            yield

    @contextmanager
    def _in_net(self, averaged: bool) -> Iterator[None]:
        before = self._swapped > 0
        try:
            self._put(averaged)
            yield
        finally:
            self._put(before)

    @torch.no_grad()
    def _put(self, averaged: bool) -> None:
        """Bring the average into the net, or its own weights back. Goes on from where an earlier call was stopped."""
        if self.tensors is None:
            return
        order = range(self._swapped, len(self.tensors)) if averaged else reversed(range(self._swapped))
        for index in order:
            tensor, average = self._learnable[index].tensor, self.tensors[index]
            other = self._learnable[index].blob.read().clone()
            tensor.data.copy_(average)
            average.copy_(other)
            self._swapped = index + averaged
            self._learnable[index].blob.advance()

    # -- in snapshots ----------------------------------------------------------------------------------------------

    def write(self, state: Any) -> None:
        """Add the average to a SolverState."""
        for entry, tensor in zip(self._learnable, self.tensors or [], strict=bool(self.tensors)):
            value = weights.blob_to_proto(tensor.cpu().numpy())
            state.average.add(layer=entry.layer, name=str(entry.index), value=value)

    def read(self, state: Any, path: Any) -> list[np.ndarray] | None:
        """The average of a SolverState, checked to fit; None if it has none or none is wanted."""
        if not self.decay or not state.average:
            return None
        stored = states.arrays(state.average, "moving average", path)
        arrays = []
        for entry in self._learnable:
            array = stored.get((0, entry.layer, str(entry.index)))
            if array is None or not weights.fits(array.shape, entry.tensor.shape):
                what = f'blob {entry.index} of layer "{entry.layer}"'
                raise SolverError(f"{path}: its moving average does not fit {what}; the state is of another net")
            arrays.append(array)
        return arrays

    def restore(self, arrays: Iterable[np.ndarray] | None) -> None:
        """Take over what `read` gave; with None the average begins anew after the next update."""
        self.tensors = (
            None
            if arrays is None
            else [
                torch.empty_like(entry.tensor, requires_grad=False).copy_(
                    torch.from_numpy(array).reshape(entry.tensor.shape)
                )
                for array, entry in zip(arrays, self._learnable, strict=True)
            ]
        )
