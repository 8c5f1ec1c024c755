"""A net for inference on OpenVINO."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Self

import openvino
import torch
import torch.nn.functional as F
from openvino import opset8
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch import ConversionExtension
from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
from torch import Tensor
from torch._ops import OpOverload
from torch.fx.experimental.proxy_tensor import make_fx

from caffe import log
from caffe.layers.base import Layer, as_tuple, exported
from caffe.net.build import Step
from caffe.net.loss_scale import LossScale
from caffe.net.pieces import Piece, Pieces
from caffe.net.rewrite import Call, Rewrite
from caffe.net.rewrite.dead import drop_dead, forget_history
from caffe.net.rewrite.dropout import drop_dropout
from caffe.proto import caffe_pb2
from caffe.writes import Watch

__all__ = ["OpenVino"]

_SHAPES = 8  # for so many shapes of the inputs a piece keeps what was made


class OpenVino(Pieces):
    """A net in TEST whose layers OpenVINO runs, converted at the first run and for each new shape.

    Layers that OpenVINO cannot take run on torch, between the pieces that it runs. Weights become constants; where they
    change, the next run converts anew, and where they may change from run to run, `outdated` says so.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        name: str,
        wanted: Collection[str],
        precision: torch.dtype = torch.float32,
        scale: LossScale | None = None,
    ) -> None:
        self._arithmetic = precision  # OpenVINO's own affair: values are float32
        self._apart: set[str] = set()  # layers that OpenVINO cannot take
        self._changes = 0  # how many runs in a row found new weights
        super().__init__(steps, name, wanted)

    def _rewrites(self) -> Sequence[Rewrite]:
        return [forget_history, drop_dropout, drop_dead]  # OpenVINO folds and fuses by itself

    def with_more(self, names: Collection[str]) -> Self:
        return type(self)(self._steps, self.name, self.wanted.union(names), self._arithmetic)

    def outdated(self) -> str:
        if self._watch.changed():
            self._pieces = self._cut()
            self._changes += 1
        elif self._changes:
            self._changes = 0
        reason = "its weights change from run to run, or somebody holds an array of them: it runs without OpenVINO"
        return reason if self._changes > 2 else ""  # the first time they are new to the watch

    def evaluate(self) -> float:
        with torch.no_grad():
            values = self._run({})
            loss = float(self._loss(values)) if self._losses else 0.0
        self._fill(values)
        if unfit := [layer for piece in self._parts() for layer in piece.unfit]:
            self._set_apart(unfit)
        return loss

    def _parts(self) -> list[_Piece]:
        return [piece for piece in self._pieces if isinstance(piece, _Piece)]

    def _set_apart(self, layers: Sequence[Layer]) -> None:
        """Run these layers on torch from now on."""
        self._apart.update(layer.name for layer in layers)
        self._pieces = self._cut()
        self._watch = Watch([t for piece in self._parts() for layer in piece.layers for t in layer.tensors])
        names = ", ".join(f'"{layer.name}" ({layer.type})' for layer in layers)
        log.warning("open_vino.py", f'net "{self.name}": OpenVINO cannot take the layers {names}: they run on torch')

    def _takes(self, call: Call) -> bool:
        return super()._takes(call) and bool(call.writes) and call.layer.name not in self._apart

    def _piece(self, calls: Sequence[Call], needed: Collection[int]) -> Piece:
        return _Piece(calls, needed, self._arithmetic)


class _Piece(Piece):
    """Layers that OpenVINO runs together."""

    def __init__(self, calls: Sequence[Call], needed: Collection[int], arithmetic: torch.dtype) -> None:
        super().__init__(calls, needed)
        self.unfit: list[Layer] = []
        self._arithmetic = arithmetic
        self._terms = [_in_its_terms(call) for call in calls]
        self._runs: dict[Any, Callable[[Sequence[Tensor]], list[Tensor]]] = {}  # the one used last at the end

    def run(self, given: list[Tensor], learns: bool) -> list[Tensor]:
        """The values: OpenVINO's, but where there is a NaN or an infinity, which its ReLU would lose."""
        if not all(math.isfinite(value.sum()) for value in given):
            return self.compute(given)
        key = (torch.get_num_threads(), *[value.shape for value in given])
        self._runs[key] = run = self._runs.pop(key, None) or self._make(given)
        if len(self._runs) > _SHAPES:
            del self._runs[next(iter(self._runs))]
        return run(given)

    def _make(self, given: Sequence[Tensor]) -> Callable[[Sequence[Tensor]], list[Tensor]]:
        """What runs the layers for values of these shapes: OpenVINO, or torch where that cannot be."""
        weights = [tensor for layer in self.layers for tensor in layer.tensors]
        if not all(value.numel() for value in given) or not all(bool(tensor.isfinite().all()) for tensor in weights):
            return self.compute
        try:
            return self._converted(given)
        except Exception:  # whatever torch and OpenVINO raise about what they cannot take
            self.unfit = self._culprits(given)
            return self.compute

    def _converted(self, given: Sequence[Tensor]) -> _Model:
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if self._arithmetic is torch.bfloat16 else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        return _Model(_core().compile_model(_convert(self._terms, self.writes, given), "CPU", settings))

    def _culprits(self, given: Sequence[Tensor]) -> list[Layer]:
        """The layers that cannot be converted by themselves; all, if each of them can."""
        values, unfit = _without_memory(self.reads, given), []
        for call in self._terms:
            bottoms = [torch.zeros(values[place].shape) for place in Piece([call], call.writes).reads]
            try:
                _convert([call], call.writes, bottoms)
            except Exception:
                unfit.append(call.layer)
            tops = call.layer.infer(*(values[place] for place, _ in call.reads))
            values.update(zip(call.writes, tops, strict=True))
        return unfit or self.layers


class _Model:
    """What OpenVINO has compiled, for values of fixed shapes. It writes into the same tensors at each run."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._given: list[Tensor] = [torch.empty(0)] * len(compiled.inputs)
        self._tops = [torch.empty(tuple(port.shape)) for port in compiled.outputs]
        for index, top in enumerate(self._tops):
            self._request.set_output_tensor(index, openvino.Tensor(top.numpy(), shared_memory=True))

    def __call__(self, given: Sequence[Tensor]) -> list[Tensor]:
        for index, value in enumerate(given):
            if value.data_ptr() != self._given[index].data_ptr() or not value.is_contiguous():
                self._given[index] = value = value.contiguous()
                self._request.set_input_tensor(index, openvino.Tensor(value.detach().numpy(), shared_memory=True))
        self._request.infer()
        return self._tops


def _convert(calls: Sequence[Call], needed: Collection[int], given: Sequence[Tensor]) -> Any:
    """Calls as OpenVINO's model, for values of the shapes of `given`; raises whatever stops that."""
    piece = Piece(calls, needed)
    kept = [(owned, dict(owned)) for layer in piece.layers for owned in (vars(layer), layer._buffers)]
    try:
        _check_blobs(calls, _without_memory(piece.reads, given))
        with warnings.catch_warnings(), exported():
            warnings.simplefilter("ignore")  # torch and OpenVINO about themselves
            write = make_fx(lambda *given: piece.compute(given), tracing_mode="fake", _allow_non_fake_inputs=True)
            decoder = TorchFXPythonDecoder(_pure(write(*given)), dynamic_shapes=False)
            model = _frontend().convert(_frontend().load(decoder))
    finally:
        changed = [_restore(owned, before) for owned, before in kept]
    if any(changed):
        raise ValueError("a layer remembers something from run to run")
    _forget_places(model)
    return model


def _without_memory(places: Sequence[int], given: Sequence[Tensor]) -> dict[int, Tensor]:
    return {place: torch.empty(value.shape, device="meta") for place, value in zip(places, given, strict=True)}


def _check_blobs(calls: Sequence[Call], values: dict[int, Tensor]) -> None:
    """Raise ValueError if a layer changes its own blobs: found by a run on values without memory."""
    for call in calls:
        blobs = {name: blob.detach().to("meta") for name, blob in call.layer.state_dict(keep_vars=True).items()}
        tops = torch.func.functional_call(call.layer, blobs, tuple(values[place] for place, _ in call.reads))
        values.update(zip(call.writes, as_tuple(tops), strict=True))
        if any(blob._version for blob in blobs.values()):
            raise ValueError("a layer changes its own blobs")


def _pure(graph: Any) -> Any:
    """The graph, if it writes into no array, which OpenVINO has not."""
    targets = [node.target for node in graph.graph.nodes]
    if any(isinstance(target, OpOverload) and target._schema.is_mutable for target in targets):
        raise ValueError("a layer writes into an array")
    return graph


def _forget_places(model: Any) -> None:
    """Have maxima made without their places, where nobody reads these."""
    for pool in model.get_ops():
        if pool.get_type_name() == "MaxPool" and not pool.output(1).get_target_inputs():
            given = pool.get_attributes()
            where = [given[name] for name in ("strides", "dilations", "pads_begin", "pads_end", "kernel")]
            rounding = given["rounding_type"].removesuffix("_torch")
            plain = opset8.max_pool(pool.input_value(0), *where, rounding, given["auto_pad"])
            if plain.output(0).get_shape() == pool.output(0).get_shape():
                pool.output(0).replace(plain.output(0))


def _restore(owned: dict[str, Any], before: dict[str, Any]) -> bool:
    """Give a layer back what it had; returns whether it had changed."""
    changed = owned.keys() != before.keys() or any(owned[name] is not value for name, value in before.items())
    if changed:
        owned.clear()
        owned.update(before)
    return changed


@functools.cache
def _core() -> Any:
    return openvino.Core()


@functools.cache
def _frontend() -> Any:
    """OpenVINO's reader of torch's graphs, with our own operators."""

    def lrn(node: Any) -> list[Any]:
        size, alpha, beta, k = map(node.get_values_from_const_input, range(1, 5))
        return opset8.lrn(node.get_input(0), opset8.constant([1]), alpha, beta, k, size).outputs()

    def prelu(node: Any) -> list[Any]:
        slope = opset8.reshape(node.get_input(1), opset8.constant([-1]), False)
        return opset8.prelu(node.get_input(0), slope).outputs()

    frontend = FrontEndManager().load_by_framework("pytorch")
    frontend.add_extension(ConversionExtension("cafetiere.lrn.default", lrn))
    frontend.add_extension(ConversionExtension("aten._prelu_kernel.default", prelu))
    return frontend


def _in_its_terms(call: Call) -> Call:
    """The call, by a single operator where OpenVINO has one and torch writes several."""
    layer: Any = call.layer
    if layer.type == "PReLU":
        return replace(call, run=lambda x: F.prelu(x, layer.weight.reshape(-1)))
    if layer.type == "LRN" and layer.opt.norm_region == caffe_pb2.LRNParameter.ACROSS_CHANNELS:
        opt = layer.opt
        return replace(call, run=lambda x: _lrn(x, opt.local_size, opt.alpha, opt.beta, opt.k))
    return call


_lrn = torch.library.custom_op(
    "cafetiere::lrn",
    lambda x, *options: F.local_response_norm(x, *options),
    mutates_args=(),
    schema="(Tensor x, int size, float alpha, float beta, float k) -> Tensor",
)


@_lrn.register_fake
def _(x: Tensor, *options: float) -> Tensor:
    return torch.empty_like(x)
