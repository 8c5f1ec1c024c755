"""Runs a piece of a net on OpenVINO. Imports the package openvino, which is an optional dependency."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import openvino
import torch
from torch import Tensor

from caffe.layers.base import Layer
from caffe.net.engines.pieces import Piece
from caffe.net.engines.vino.graph import convert, in_its_terms, without_memory

__all__ = ["OpenVinoRun"]

_SHAPES = 8  # the number of input shapes for which a piece caches compiled models


class OpenVinoRun:
    """Runs a piece on OpenVINO. `unfit` are the layers of the piece that OpenVINO does not support."""

    def __init__(self, piece: Piece, arithmetic: torch.dtype) -> None:
        self.piece = piece
        self.unfit: list[Layer] = []
        self.runs: dict[Any, Callable[[Sequence[Tensor]], list[Tensor]]] = {}  # by shapes; the latest used is last
        self._arithmetic = arithmetic
        self._terms = [in_its_terms(call) for call in piece.calls]

    def __call__(self, given: list[Tensor], learns: bool) -> list[Tensor]:
        """Compute the values with OpenVINO, or with torch if an input is NaN or infinite: OpenVINO's ReLU drops NaN."""
        if not all(map(_finite, given)):
            return self.piece.compute(given)
        key = (torch.get_num_threads(), *[value.shape for value in given])
        self.runs[key] = run = self.runs.pop(key, None) or self._make(given)
        if len(self.runs) > _SHAPES:
            del self.runs[next(iter(self.runs))]
        return run(given)

    def _make(self, given: Sequence[Tensor]) -> Callable[[Sequence[Tensor]], list[Tensor]]:
        """A function that runs the layers for values of these shapes, with OpenVINO if possible, else with torch."""
        weights = [tensor for layer in self.piece.layers for tensor in layer.tensors]
        if not all(value.numel() for value in given) or not all(bool(tensor.isfinite().all()) for tensor in weights):
            return self.piece.compute
        try:
            return self._converted(given)
        except Exception:  # any error of torch or OpenVINO about unsupported layers
            self.unfit = self._culprits(given)
            return self.piece.compute

    def _converted(self, given: Sequence[Tensor]) -> _Model:
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if self._arithmetic is torch.bfloat16 else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        model, used = convert(self._terms, self.piece.writes, given)
        return _Model(model, used, _core().compile_model(model, "CPU", settings))

    def _culprits(self, given: Sequence[Tensor]) -> list[Layer]:
        """The layers that cannot be converted one by one. All layers, if each can."""
        values, unfit = without_memory(self.piece.reads, given), []
        for call in self._terms:
            bottoms = [torch.zeros(values[place].shape) for place in Piece([call], call.writes).reads]
            try:
                convert([call], call.writes, bottoms)
            except Exception:
                unfit.append(call.layer)
            tops = call.layer.infer(*(values[place] for place, _ in call.reads))
            values.update(zip(call.writes, tops, strict=True))
        return unfit or self.piece.layers


def _finite(value: Tensor) -> bool:
    """Whether all numbers are finite. Uses numpy: torch's threads would keep spinning and slow down OpenVINO's."""
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(np.sum(value.detach().numpy()))


class _Model:
    """A model that OpenVINO compiled for fixed shapes. Each run writes to the same tensors."""

    def __init__(self, model: Any, used: Sequence[int], compiled: Any) -> None:
        if len(model.inputs) != len(used):
            raise ValueError("OpenVINO has dropped an input")
        self._used = used
        if [port.shape for port in compiled.outputs] != [port.shape for port in model.outputs]:
            raise ValueError("OpenVINO has made tops of other shapes")
        self._request = compiled.create_infer_request()
        self._given: list[Tensor] = [torch.empty(0)] * len(compiled.inputs)
        self._tops = [torch.empty(tuple(port.shape)) for port in compiled.outputs]
        for index, top in enumerate(self._tops):
            self._request.set_output_tensor(index, openvino.Tensor(top.numpy(), shared_memory=True))

    def __call__(self, given: Sequence[Tensor]) -> list[Tensor]:
        for index, value in enumerate(given[place] for place in self._used):
            if value.data_ptr() != self._given[index].data_ptr() or not value.is_contiguous():
                self._given[index] = value = value.contiguous()
                self._request.set_input_tensor(index, openvino.Tensor(value.detach().numpy(), shared_memory=True))
        self._request.infer()
        return self._tops


@functools.cache
def _core() -> Any:
    return openvino.Core()
