"""Records a training pass with fixed shapes as a CUDA graph, which later passes replay with one launch.

For small nets on a GPU, launching the kernels one by one takes longer than the kernels. A CUDA graph launches all at
once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from caffe import log
from caffe.layers.base import Layer
from caffe.layers.support.effects import buffers_of, put_back_buffers
from caffe.layers.support.values import recording

__all__ = ["Record", "Recorder", "cuda_recorder", "recorded"]

Made = TypeVar("Made")
Recorder = Callable[[Callable[[], Made]], tuple[Callable[[], None], Made]]
"""Takes a function. Returns a function that replays its work on the device, and the tensors that hold its results."""

WARM_UP = 3
"""The number of passes before recording. In the first passes libraries select kernels and allocate workspaces."""


def recorded(device: torch.device) -> bool:
    """Whether to record on this device: True on a GPU, unless the environment variable CAFFE_CUDA_GRAPHS is 0."""
    return device.type == "cuda" and os.environ.get("CAFFE_CUDA_GRAPHS", "1") != "0"


def cuda_recorder(work: Callable[[], Made]) -> tuple[Callable[[], None], Made]:
    """Record `work` as a CUDA graph. The kernels do not run before the first replay."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = work()
    return graph.replay, made


class Record:
    """Runs passes eagerly at first, then from a record. Records again if shapes, weight addresses or the phase change.

    `work` takes input tensors, adds to the gradients of `parameters` and returns tensors. A replay returns the same
    tensors each time, with new content. Passes that cannot be recorded stay eager, after one warning: a layer in
    `layers` needs values on the host, must be called each time (`Effects.needs_calls`), or replaces its buffers in each
    run.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Tensor]], Any],
        parameters: Sequence[nn.Parameter],
        recorder: Recorder | None = cuda_recorder,
        layers: Sequence[Layer] = (),
    ) -> None:
        self._work, self._parameters, self._recorder, self._layers = work, parameters, recorder, layers
        self._stores = [store for store, _ in buffers_of(*layers)]
        self._buffers: list[int] = []  # addresses of the buffers that the record reads and writes
        self._key: Any = None
        self._passes = 0
        self._inputs: list[Tensor] = []
        self._grads: list[Tensor | None] = []
        self._replay: Callable[[], None] | None = None
        self._made: Any = None

    @property
    def replays(self) -> bool:
        """Whether passes are replayed and so return the same tensors each time."""
        return self._replay is not None

    def run(self, given: Sequence[Tensor], fixed: float = 0.0) -> Any:
        """Run one pass over `given`; returns the result of `work`. `fixed` is a number that is constant in a record."""
        key = fixed, tuple((x.shape, x.dtype, x.stride()) for x in given), tuple(map(_lies, self._parameters))
        if key != self._key:
            self._key, self._passes, self._replay = key, 0, None
        if self._replay is not None and self._places_of_buffers() != self._buffers:
            self._passes, self._replay = 0, None
        self._passes += 1
        if self._passes <= WARM_UP:
            return self._beside(given)
        if self._replay is None and not self._record(given):
            return self._work(given)
        return self._repeat(given)

    def _beside(self, given: Sequence[Tensor]) -> Any:
        """Run a pass in a separate stream, which is used for recording too."""
        if not given or given[0].device.type != "cuda":
            return self._work(given)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            made = self._work(given)
        torch.cuda.current_stream().wait_stream(stream)
        return made

    def _record(self, given: Sequence[Tensor]) -> bool:
        if self._recorder is None:
            return False
        if obstacle := next((layer for layer in self._layers if layer.effects_now.needs_calls), None):
            return self._refuse(f"{_name(obstacle)} must be called each time")
        held = {layer: buffers_of(layer) for layer in self._layers}
        self._inputs = [x.clone() for x in given]
        before = [parameter.grad for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        try:
            with recording():
                self._replay, self._made = self._recorder(lambda: self._work(self._inputs))
            self._grads = [parameter.grad for parameter in self._parameters]
        except RuntimeError as error:
            self._refuse(str(error).splitlines()[0])
        for parameter, grad in zip(self._parameters, before, strict=True):
            parameter.grad = grad
        if changed := [layer for layer in self._layers if put_back_buffers(held[layer])]:
            self._refuse(f"{_name(changed[0])} has another buffer after a run, instead of one that it changes in place")
        self._buffers = self._places_of_buffers()
        return self._replay is not None

    def _refuse(self, reason: str) -> bool:
        log.warning("cudagraph.py", f"the pass is not recorded as a CUDA graph, and runs eagerly: {reason}")
        self._recorder = self._replay = None
        return False

    def _places_of_buffers(self) -> list[int]:
        return [x.data_ptr() for store in self._stores for x in store.values() if x is not None]

    def _repeat(self, given: Sequence[Tensor]) -> Any:
        assert self._replay is not None
        earlier = [parameter.grad for parameter in self._parameters]
        earlier = [x.clone() if x is not None and x is own else x for x, own in zip(earlier, self._grads, strict=True)]
        for mine, new in zip(self._inputs, given, strict=True):
            mine.copy_(new, non_blocking=True)
        self._replay()
        for parameter, grad, own in zip(self._parameters, earlier, self._grads, strict=True):
            if grad is None:
                parameter.grad = own
            elif own is not None:
                grad.add_(own)
                parameter.grad = grad
        return self._made


def _name(layer: Layer) -> str:
    return f'layer "{layer.name}" ({layer.type})'


def _lies(parameter: nn.Parameter) -> tuple[int, bool]:
    return parameter.data_ptr(), parameter.requires_grad
