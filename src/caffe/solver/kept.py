"""The state of a run besides weights and histories: positions in the data, buffers of layers, random generators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from caffe.layers.base import Layer, Source
from caffe.net import Net
from caffe.parameter_memory import collect_lent_copies

__all__ = [
    "buffers",
    "check_random_state",
    "get_buffer",
    "random_state",
    "set_buffer",
    "set_random_state",
    "sources",
    "undisturbed",
]

_CUDA_STATE = 16  # bytes: seed and offset of a GPU's generator


def sources(nets: Sequence[Net]) -> Iterator[tuple[int, Source]]:
    """Yield every data source, with the index of its net in `nets`."""
    for number, net in enumerate(nets):
        for source in net.sources.values():
            yield number, source


def buffers(nets: Sequence[Net]) -> Iterator[tuple[int, Layer, str, Tensor]]:
    """Yield the buffers of layers that persist between batches but are not in weight files, such as hidden states."""
    for number, net in enumerate(nets):
        for layer in net.layers:
            blobs = {id(blob) for blob in layer.tensors}
            for name, value in layer.state_dict(keep_vars=True).items():
                if id(value) not in blobs and not isinstance(value, nn.Parameter) and value.is_floating_point():
                    yield number, layer, name, value


def get_buffer(layer: Layer, name: str) -> Tensor:
    """Return the layer's buffer `name`. The name can contain the path of a submodule, such as "cell.h"."""
    *parents, last = name.split(".")
    value: Tensor = getattr(layer.get_submodule(".".join(parents)), last)
    return value


def set_buffer(layer: Layer, name: str, value: Tensor) -> None:
    """Set the layer's buffer `name`. The name can contain the path of a submodule, such as "cell.h"."""
    *parents, last = name.split(".")
    setattr(layer.get_submodule(".".join(parents)), last, value)


def random_state(device: torch.device) -> bytes:
    """Return the state of torch's CPU generator, followed by the state of the GPU's generator if the net is on a
    GPU.
    """
    gpu = torch.cuda.get_rng_state(device).numpy().tobytes() if device.type == "cuda" else b""
    return torch.get_rng_state().numpy().tobytes() + gpu


def check_random_state(stored: bytes) -> str:
    """Return why `set_random_state` cannot use these bytes; an empty string if it can."""
    size = torch.get_rng_state().numel()
    if len(stored) not in (size, size + _CUDA_STATE):
        return f"random_state has {len(stored)} bytes, expected {size}, or {size + _CUDA_STATE} from a run on a GPU"
    if int.from_bytes(stored[size + 8 :], "little") % 4:
        return "the part of random_state for a GPU has an offset that is not a multiple of 4"
    try:
        torch.Generator().set_state(torch.frombuffer(bytearray(stored[:size]), dtype=torch.uint8))
    except RuntimeError as error:
        return f"random_state is not a state of torch's random generator ({error})"
    return ""


def set_random_state(stored: bytes, device: torch.device) -> None:
    """Set the generators to a state from `random_state`. `check_random_state` must have accepted it."""
    values = torch.frombuffer(bytearray(stored), dtype=torch.uint8)
    size = torch.get_rng_state().numel()
    torch.set_rng_state(values[:size])
    if device.type == "cuda" and values.numel() > size:
        torch.cuda.set_rng_state(values[size:], device)


@contextmanager
def undisturbed(net: Net, trained: Net) -> Iterator[None]:
    """Run `net` in the block and then restore everything that its forward passes change.

    Restored are the random generators, the net's positions in its data, the buffers of its layers, and the batch
    statistics that it may share with the net `trained`. Attributes of layers written in Python are not restored.
    """
    collect_lent_copies()
    positions = [(source, source.position()) for _, source in sources([net])]
    states = [(layer, name, value, value.clone()) for _, layer, name, value in buffers([net])]
    blobs = [blob for each in (net, trained) for layer in each.layers for blob in layer.tensors]
    statistics = [(blob, blob.clone()) for blob in blobs if not isinstance(blob, nn.Parameter)]
    generators = random_state(net.device)
    try:
        yield
    finally:
        set_random_state(generators, net.device)
        with torch.no_grad():
            for layer, name, value, content in states:
                set_buffer(layer, name, value.copy_(content))
            for blob, content in statistics:
                if not torch.equal(blob, content):
                    blob.copy_(content)
        for source, position in positions:
            if source.position() != position:
                source.seek(position)
