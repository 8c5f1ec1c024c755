"""Finds the first NaN or infinite value of a step, by running that step again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from caffe.blob import Blob
from caffe.doctor.finding import Finding, Severity
from caffe.layers.base import Layer, Source, as_tuple
from caffe.layers.support.effects import Effects
from caffe.net import Net
from caffe.solver import kept

__all__ = ["Before", "first_bad"]

_LOWER = "lower base_lr, or clip_gradients; caffe doctor on the solver finds the cause"


@dataclass(frozen=True)
class Before:
    """The state before a step besides the weights: random generators, positions in the data, buffers of layers."""

    random: tuple[Tensor, ...]
    places: tuple[Callable[[], bytes], ...]
    states: tuple[tuple[Layer, str, Tensor], ...]

    @classmethod
    def now(cls, device: torch.device, sources: Sequence[Source], buffers: Sequence[tuple[Layer, str]]) -> Before:
        """Record the current state. `sources` and `buffers` are the net's."""
        states = tuple((layer, name, kept.get_buffer(layer, name).clone()) for layer, name in buffers)
        random = [torch.default_generator.get_state()]
        if device.type == "cuda":
            random.append(torch.cuda.get_rng_state(device))
        return cls(tuple(random), tuple(each.mark() for each in sources), states)

    def restore(self, net: Net) -> None:
        """Restore the state."""
        torch.set_rng_state(self.random[0])
        if len(self.random) > 1:
            torch.cuda.set_rng_state(self.random[1], net.device)
        for (_, source), place in zip(kept.sources([net]), self.places, strict=True):
            source.seek(place())
        for layer, name, value in self.states:
            kept.set_buffer(layer, name, value.clone())


def first_bad(net: Net, before: Before, passes: int, loss: float, alone: bool = True) -> Finding:
    """Run the batches of a step again, layer by layer, and describe the first value that is not finite.

    The weights must still be those of the step. Training is not affected. The step is not repeated if this process is
    not `alone`, because the other processes do not take part.
    """
    broken = [entry for entry in net.learnable if not bool(entry.tensor.isfinite().all())]
    if broken:  # backward runs from the last layer to the first, so the last layer is nearest to the origin
        entry = broken[-1]
        return _finding(
            f"its last update made {_count(entry.tensor)} of blob {entry.index} of layer "
            f'"{entry.layer}" not finite: a gradient was too large, NaN or infinite',
            layer=entry.layer,
        )
    if not alone:
        return _finding(f"the loss is {loss:g}; run in one process to find the layer")
    if any(layer.effects & Effects.CALLS and not isinstance(layer, Source) for layer in net.layers):
        return _finding(f"the loss is {loss:g}; the step contains Python code, so it is not repeated to find the layer")
    with kept.undisturbed(net, net), torch.no_grad():
        before.restore(net)
        for _ in range(passes):
            found = _walk(net)
            if found is not None:
                return found
    if net.precision is not torch.float32:
        return _finding(f"the loss is {loss:g}, but finite in float32: the 16-bit values overflow")
    return _finding(f"the loss is {loss:g}, though no blob of the step holds a value that is not finite")


def _walk(net: Net) -> Finding | None:
    """Make a forward pass on copies of the values. The net's blobs are not changed."""
    values: dict[Blob, Tensor] = {}
    for step in net.steps:
        bottoms = [values[blob] for blob in step.bottoms]
        made = step.layer(*bottoms)
        tops = [None] * len(step.tops) if made is None else as_tuple(made)
        for blob, top in zip(step.tops, tops, strict=True):
            value = values[blob] = blob.read() if top is None else top
            if value.is_floating_point() and not bool(value.isfinite().all()):
                return _told(step.layer, blob.name, value, bottoms)
    return None


def _told(layer: Layer, name: str, value: Tensor, bottoms: Sequence[Tensor]) -> Finding:
    if isinstance(layer, Source):
        return Finding(
            "non-finite-data",
            Severity.ERROR,
            f'the data of layer "{layer.name}" are not finite: {_count(value)} of blob "{name}"',
            "look for such records, for instance with caffe doctor on the solver",
            layer=layer.name,
        )
    largest = max((float(x.abs().max()) for x in bottoms if x.numel()), default=0.0)
    return _finding(
        f'the first values that are not finite are {_count(value)} of blob "{name}", computed by layer "{layer.name}" '
        f"({layer.type}); its bottoms were finite, {largest:.3g} at most",
        layer=layer.name,
    )


def _finding(fact: str, layer: str = "") -> Finding:
    return Finding("diverges", Severity.ERROR, fact, _LOWER, layer=layer)


def _count(value: Tensor) -> str:
    return f"{int((~value.isfinite()).sum())} of {value.numel()} values"
