"""The moving average of the weights: updated during training, used in place of the weights in tests."""

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
    """The exponential moving average of all learnable blobs, batch statistics included.

        average <- weights                                   after the first update
        average <- decay average + (1 - decay) weights       after each later one

    A `decay` of 0 means that no average is kept: `tensors` stays None and all methods do nothing.
    Source: Polyak & Juditsky, 1992; torch.optim.swa_utils.AveragedModel uses the same definition.
    """

    def __init__(self, decay: float, learnable: Sequence[Learnable]) -> None:
        self.decay = decay
        self.tensors: list[Tensor] | None = None
        self._learnable = learnable
        self._swapped = 0  # number of the net's first blobs that hold the average instead of their own weights

    def update(self) -> None:
        """Update the average with the current weights. Called after each update of the weights."""
        if self.decay:
            self._update([entry.tensor.detach() for entry in self._learnable])

    @torch.no_grad()
    def _update(self, current: list[Tensor]) -> None:
        if self.tensors is None:
            self.tensors = [tensor.clone() for tensor in current]
        else:
            torch_internals.foreach_lerp(self.tensors, current, 1 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the averaged weights in the net during the block, then restore the previous ones.

        Blocks can be nested.
        """
        with self._in_net(averaged=True):
            yield

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Use the net's own weights during the block, then restore the previous state. The inverse of `applied`."""
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
        """Copy the average into the net, or the net's own weights back.

        A call that was interrupted is continued by the next.
        """
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
        """Store the average in a SolverState."""
        for entry, tensor in zip(self._learnable, self.tensors or [], strict=bool(self.tensors)):
            value = weights.blob_to_proto(tensor.cpu().numpy())
            state.average.add(layer=entry.layer, name=str(entry.index), value=value)

    def read(self, state: Any, path: Any) -> list[np.ndarray] | None:
        """Read the average from a SolverState and check its shapes.

        Returns None if the state has no average or `decay` is 0.
        """
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
        """Set the average to the result of `read`.

        With None, the average starts from the weights after the next update.
        """
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
