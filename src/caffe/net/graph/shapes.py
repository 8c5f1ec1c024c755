"""Shape inference for a layer, and its errors."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Sequence

import torch

from caffe.errors import CaffeError, LayerError
from caffe.layers.base import Layer, Source, shape_text
from caffe.limits import check_size
from caffe.net.graph.step import Step

__all__ = ["failure", "infer_tops"]

_KEPT = 64
"""The number of combinations of bottom shapes for which a step keeps the shapes of its tops."""


def infer_tops(step: Step, first: bool = False) -> list[tuple[int, ...]]:
    """The shapes of a step's tops for the current shapes of its bottoms. `first` calls the layer's `setup` before.

    The step keeps the result for the shapes that it saw last, if it depends on nothing else.
    """
    given = tuple([blob.shape for blob in step.bottoms])
    if given in step.known_shapes and not first:
        return step.known_shapes[given]
    shapes = _inferred(step, given, first)
    if _depends_on_shapes_only(step.layer):
        if len(step.known_shapes) >= _KEPT:
            step.known_shapes.clear()
        step.known_shapes[given] = shapes
    return shapes


def _depends_on_shapes_only(layer: Layer) -> bool:
    """Whether equal bottom shapes always give equal top shapes. Code of users may have any state."""
    return (
        type(layer).__module__.startswith("caffe.")
        and not isinstance(layer, Source)
        and not layer.effects.needs_calls
        and len(layer.spec.bottom) > 0
    )


def _inferred(step: Step, given: Sequence[tuple[int, ...]], first: bool) -> list[tuple[int, ...]]:
    """The shapes of the tops, by a run of the layer on meta tensors."""
    layer = step.layer
    bottoms = [torch.empty(shape, device="meta") for shape in given]
    try:
        if first:
            layer.setup(*bottoms)
        tops = layer.infer(*bottoms)
    except CaffeError:
        raise
    except Exception as error:
        if "Storage size calculation overflowed" in str(error):
            layer.error(f"has more elements than can be counted: {error}; use smaller sizes")
        raise failure(step, error) from error
    shapes = [tuple(top.shape) for top in tops]
    for blob, shape in zip(step.tops, shapes, strict=False):
        if not step.shares:
            check_size(f'top "{blob.name}"', shape, layer.error, blob.data_memory.raw.device)
    _check_in_place(step, shapes)
    return shapes


def _check_in_place(step: Step, shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise an error if an in-place layer changes the shape, since backward and reshape need the bottom's shape."""
    for blob, shape in zip(step.tops, shapes, strict=False):
        if blob.shape != shape and any(blob is bottom for bottom in step.bottoms):
            step.layer.error(
                f'works in place on "{blob.name}" of shape {shape_text(blob.shape)}, but its top has shape '
                f"{shape_text(shape)}; give the top another name, and use this name in the layers after it"
            )


def failure(step: Step, error: Exception) -> LayerError:
    """The error for an exception in a layer. It names the layer, its bottoms and, for a user's layer, file and line."""
    layer = step.layer
    shapes = ", ".join(f'"{blob.name}" {shape_text(blob.shape)}' for blob in step.bottoms) or "no bottoms"
    source = inspect.getsourcefile(type(layer))
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == source]
    own = not type(layer).__module__.startswith("caffe.")
    place = f"{source}:{lines[-1]}: {type(error).__name__}: " if own and lines else ""
    return LayerError(f'layer "{layer.name}" ({layer.type}): {place}{error} (bottoms: {shapes})').at(layer.name)
