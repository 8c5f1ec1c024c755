"""Monte Carlo dropout: dropout stays on in TEST, and repeated runs recompute only the layers that depend on it."""

from __future__ import annotations

from collections.abc import Sequence

from caffe.errors import NetError
from caffe.layers.activation import RandomInTraining
from caffe.layers.base import Layer, Source
from caffe.net.graph.step import Step
from caffe.proto import caffe_pb2

__all__ = ["first_repeated", "random_layers", "switch"]


def random_layers(layers: Sequence[Layer]) -> list[Layer]:
    """The layers that draw random numbers in TRAIN only, such as Dropout."""
    return [layer for layer in layers if isinstance(layer, RandomInTraining)]


def switch(layers: Sequence[Layer], phase: int, on: bool) -> None:
    """Switch the random numbers of such layers on or off, for a net in TEST. Raises NetError."""
    found = random_layers(layers)
    if phase != caffe_pb2.TEST:
        raise NetError("Monte Carlo dropout is for a net in TEST; one in TRAIN draws random numbers anyway")
    if on and not found:
        raise NetError("Monte Carlo dropout needs a Dropout layer, and the net has none in TEST")
    for layer in found:
        layer.train(on)


def first_repeated(steps: Sequence[Step]) -> int:
    """The last step from which a run can be repeated so that all random layers are run again.

    The tops of the steps before it must be intact, so no later step may overwrite them in place. Raises NetError if
    only a run that reads new data would be possible.
    """
    random = next((index for index, step in enumerate(steps) if isinstance(step.layer, RandomInTraining)), 0)
    lowest = max((index for index, step in enumerate(steps[:random]) if isinstance(step.layer, Source)), default=-1) + 1
    for start in range(random, lowest - 1, -1):
        if _repeatable(steps[start:]):
            return start
    name = steps[random].layer.name
    raise NetError(f'layer "{name}" works in place on the data, so it cannot be repeated: give it a top of its own')


def _repeatable(steps: Sequence[Step]) -> bool:
    """Whether these steps do not modify the blobs that they read from earlier steps."""
    made: set[int] = set()
    for step in steps:
        read = {id(blob) for blob in step.bottoms}
        written = {id(blob) for blob in step.tops}
        if (read & written) - made:
            return False
        made |= written
    return True
