"""Converts layers to an OpenVINO model: traces them as torch operators, which OpenVINO's frontend converts."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from openvino import opset8
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch import ConversionExtension
from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from caffe import torch_internals
from caffe.layers.base import as_tuple, exported
from caffe.layers.convolution import is_convolution
from caffe.layers.normalization import LRN
from caffe.layers.support.geometry import Slide
from caffe.net.engines.pieces import Piece
from caffe.net.plan.rewrite import Call
from caffe.proto import caffe_pb2

__all__ = ["convert", "in_its_terms", "without_memory"]


def convert(calls: Sequence[Call], needed: Collection[int], given: Sequence[Tensor]) -> tuple[Any, list[int]]:
    """Convert calls to an OpenVINO model for the shapes of `given`, and say which of these are the model's inputs.

    The others are not inputs, because only their shapes are used. Exceptions of torch and OpenVINO are not caught.
    """
    piece = Piece(calls, needed)
    kept = [(owned, dict(owned)) for layer in piece.layers for owned in (vars(layer), layer._buffers)]
    try:
        _check(calls, without_memory(piece.reads, given))
        with warnings.catch_warnings(), exported():
            warnings.simplefilter("ignore")  # internal warnings of torch and OpenVINO
            write = make_fx(lambda *given: piece.compute(given), tracing_mode="fake", _allow_non_fake_inputs=True)
            graph = _pure(write(*given))
            used = _drop_unused_inputs(graph)
            decoder = TorchFXPythonDecoder(graph, dynamic_shapes=False)
            model = _frontend().convert(_frontend().load(decoder))
    finally:
        changed = [_restore(owned, before) for owned, before in kept]
    if any(changed):
        raise ValueError("a layer keeps a state from run to run")
    _forget_places(model)
    return model, used


def without_memory(places: Sequence[int], given: Sequence[Tensor]) -> dict[int, Tensor]:
    """Meta tensors with the shapes of those given, by place."""
    return {place: torch.empty(value.shape, device="meta") for place, value in zip(places, given, strict=True)}


def _check(calls: Sequence[Call], values: dict[int, Tensor]) -> None:
    """Raise ValueError for a layer that modifies its own blobs, which a run on meta tensors shows, or that OpenVINO
    computes wrongly."""
    for call in calls:
        layer: Any = call.layer
        if is_convolution(layer) and _steps_over_padding(layer.slide):
            raise ValueError("a 1 x 1 convolution has a stride and padding")
        blobs = {name: blob.detach().to("meta") for name, blob in layer.state_dict(keep_vars=True).items()}
        tops = torch.func.functional_call(layer, blobs, tuple(values[place] for place, _ in call.reads))
        values.update(zip(call.writes, as_tuple(tops), strict=True))
        if any(blob._version for blob in blobs.values()):
            raise ValueError("a layer changes its own blobs")


def _steps_over_padding(slide: Slide) -> bool:
    """Whether OpenVINO 2026.4 computes this window wrongly: it moves the stride to the previous layer, before the
    padding."""
    return set(slide.kernel) == {1} and set(slide.stride) != {1} and any(slide.pad)


def _pure(graph: Any) -> Any:
    """The graph. Raises an error if it writes in place, which OpenVINO does not support."""
    targets = [node.target for node in graph.graph.nodes]
    if any(torch_internals.is_mutable_operator(target) for target in targets):
        raise ValueError("a layer writes into an array")
    return graph


def _drop_unused_inputs(graph: Any) -> list[int]:
    """Remove the nodes without an effect on the outputs, and such inputs. Returns the indices of the other inputs."""
    graph.graph.eliminate_dead_code()
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    used = [index for index, node in enumerate(inputs) if node.users]
    for node in inputs:
        if not node.users:
            graph.graph.erase_node(node)
    graph.recompile()
    return used


def _forget_places(model: Any) -> None:
    """Replace max pooling by the variant without indices, if the indices are not used."""
    for pool in model.get_ops():
        if pool.get_type_name() == "MaxPool" and not pool.output(1).get_target_inputs():
            given = pool.get_attributes()
            where = [given[name] for name in ("strides", "dilations", "pads_begin", "pads_end", "kernel")]
            rounding = given["rounding_type"].removesuffix("_torch")
            plain = opset8.max_pool(pool.input_value(0), *where, rounding, given["auto_pad"])
            if plain.output(0).get_shape() == pool.output(0).get_shape():
                pool.output(0).replace(plain.output(0))


def _restore(owned: dict[str, Any], before: dict[str, Any]) -> bool:
    """Restore a layer's attributes. Returns whether any had changed."""
    changed = owned.keys() != before.keys() or any(owned[name] is not value for name, value in before.items())
    if changed:
        owned.clear()
        owned.update(before)
    return changed


@functools.cache
def _frontend() -> Any:
    """OpenVINO's frontend for torch graphs, extended by missing operators."""

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


def in_its_terms(call: Call) -> Call:
    """Replace LRN, which torch splits into several operators, by OpenVINO's LRN operator."""
    layer: Any = call.layer
    if type(layer) is LRN and layer.opt.norm_region == caffe_pb2.LRNParameter.ACROSS_CHANNELS:
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
