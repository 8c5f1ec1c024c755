"""The base class of all layers: a pure function of tensors with named, learnable blobs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, ClassVar, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from caffe import filler, lazy_zeros, log
from caffe.blob import Blob, ParamBlob
from caffe.blob_vec import BlobVec
from caffe.data.pipeline import shard
from caffe.errors import LayerError
from caffe.layers.support import dry
from caffe.layers.support.effects import Effects, Held, RandomState, repeating
from caffe.layers.support.options import Options, field_of, from_text, written
from caffe.layers.support.traits import Lowering, Records, Traits
from caffe.layers.support.values import exported, has_values, is_exported
from caffe.limits import check_size
from caffe.proto import caffe_pb2, extend
from caffe.registry import LAYERS

__all__ = ["Effects", "Layer", "Loss", "Lowering", "Records", "Source", "exported", "has_values", "is_exported"]


class Layer(Traits, nn.Module):
    """One layer of a net.

    A concrete class is a layer type: defining it registers it under the class name. Class arguments:

        bottoms, tops   how many blobs it reads and writes: a number, or (least, most) with None for no limit
        options         the field of LayerParameter that holds its options; the default is found by the type's name.
                        For the options of your own layer types see caffe.layers.support.options.field_of
        abstract        True for a base class, which is not registered

    A subclass defines `setup`, which checks options and declares blobs, and `forward`, a pure function of the bottoms
    and blobs. Autograd derives the gradients from `forward`, and a run on meta tensors gives the shapes. If `forward`
    has side effects, the class attribute `effects` declares them. `Traits` lists all attributes of a layer type.
    """

    type: ClassVar[str]  # type: ignore[assignment]
    bottoms: ClassVar[tuple[int, int | None]]
    tops: ClassVar[tuple[int, int | None]]
    options: ClassVar[str | None] = None
    defaults: ClassVar[Mapping[str, Any] | None] = None

    def __init_subclass__(
        cls,
        bottoms: int | tuple[int, int | None] = 1,
        tops: int | tuple[int, int | None] = 1,
        options: Options = None,
        abstract: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        if cls.effects is Effects.NONE and tops == 0 and "effects" not in vars(cls):
            cls.effects = Effects.CALLS
        if "forward" in vars(cls) and "forgets_top" not in vars(cls):
            cls.forgets_top = False
        if "records" not in vars(cls):
            cls.records = Records.UNKNOWN
        if "effects" in vars(cls) and "traceable" not in vars(cls):
            cls.traceable = not (cls.effects.needs_calls or cls.effects & Effects.CHECKS)
        if abstract:
            return
        cls.type = cls.__name__
        cls.bottoms = (bottoms, bottoms) if isinstance(bottoms, int) else bottoms
        cls.tops = (tops, tops) if isinstance(tops, int) else tops
        LAYERS.check(cls.type, cls)
        cls.options = field_of(cls, options)
        cls.defaults = options if isinstance(options, Mapping) else cls.defaults
        LAYERS.add(cls.type, cls)

    def __init__(self, spec: Any, phase: int = caffe_pb2.TRAIN) -> None:
        """`spec` is a LayerParameter; `phase` is caffe_pb2.TRAIN or caffe_pb2.TEST."""
        super().__init__()
        self.spec = spec
        self.name: str = spec.name
        self.opt: Any = extend.options(spec, self.options) if self.options else None
        if self.defaults is not None:
            self.opt = from_text(self.opt, self.defaults, self.error)
        self.top_count = len(spec.top)
        self._blob_names: list[str] = []
        self._param_blobs: list[ParamBlob] = []
        self._fillers: dict[str, Any] = {}
        self.train(phase == caffe_pb2.TRAIN)
        self._check_counts()
        if given := written(self.opt, self.without_effect):
            fact = "have no effect, as in the fork that has them" if len(given) > 1 else "has no effect, as in its fork"
            log.warning("base.py", f'layer "{self.name}" ({self.type}): {", ".join(given)} {fact}')

    # -- methods that a layer type defines -------------------------------------------------------------------------

    def setup(self, *bottoms: Any, **_: Any) -> None:
        """Check the options and the shapes of the bottoms (meta tensors), and declare blobs with `add_blob`."""

    def forward(self, *bottoms: Any, **_: Any) -> Any:
        """Compute the tops from the bottoms. Shape inference calls this with meta tensors."""
        raise NotImplementedError(self.type)

    def example(self, index: int, x: Tensor) -> Tensor | None:
        """Valid values of x's shape for bottom `index`, for checks, if random numbers are not valid there."""
        return None

    # -- what the base class provides ------------------------------------------------------------------------------

    @property
    def phase(self) -> int:
        """caffe_pb2.TRAIN or caffe_pb2.TEST, following `train()` and `eval()`."""
        return caffe_pb2.TRAIN if self.training else caffe_pb2.TEST

    def mixes_records(self, axes: int) -> str:
        """The reason why the tops do not follow `records` with the layer's options; "" if they do.

        `axes` is the number of axes of the first bottom.
        """
        return ""

    @property
    def shares(self) -> bool:
        """Whether the tops are views of the first bottom, so that a write to one changes the other."""
        return False

    @property
    def shares_diff(self) -> bool:
        """Whether the diffs of the tops are views of the first bottom's diff. Implies `shares`."""
        return self.shares

    def add_blob(self, name: str, shape: Sequence[int], fill: Any = None, trained: bool = True) -> None:
        """Declare the next blob, `self.<name>`. The FillerParameter `fill` gives its first values, zeros if None.

        If `trained` is False (as for running statistics), the blob is a buffer and gets no gradient.
        """
        check_size(f"the blob {name}", shape, self.error)
        tensor = torch.empty(tuple(shape), device="meta")
        if trained:
            self.register_parameter(name, nn.Parameter(tensor))
        else:
            self.register_buffer(name, tensor)
        self._param_blobs.append(ParamBlob(self, name, f"{self.name}[{len(self._blob_names)}]"))
        self._blob_names.append(name)
        self._fillers[name] = fill
        if fill is not None:
            filler.check_filler(fill, self.error)

    def adapted(self, arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """The arrays of a weight file for this layer, changed to fit its blobs. Most types return them as given."""
        return arrays

    def takes_buffer(self, name: str, shape: Sequence[int]) -> bool:
        """Whether the buffer `name` can be replaced by one of this shape, which a solver state holds.

        A size of 0 means that the first batch determines the size of that axis.
        """
        own = self.state_dict(keep_vars=True)[name].shape
        return len(shape) == len(own) and all(a == b or 0 in (a, b) for a, b in zip(shape, own, strict=True))

    @property
    def tensors(self) -> list[Tensor]:
        """The layer's parameters and statistics in Caffe's order, as weight files store them."""
        return [getattr(self, name) for name in self._blob_names]

    @property
    def blobs(self) -> BlobVec:
        """The same tensors as pycaffe blobs. `data` and `diff` are numpy arrays that share the tensors' memory."""
        return BlobVec(self._param_blobs, f'layer "{self.name}" ({self.type})')

    @property
    def param_blobs(self) -> list[ParamBlob]:
        """The blobs of the layer, in Caffe's order."""
        return self._param_blobs

    def share_blob(self, index: int, owner: ParamBlob) -> None:
        """Replace blob `index` by another layer's parameter; both layers then share data and gradient."""
        parameter, mine = owner.parameter, self._param_blobs[index]
        if parameter.shape == mine.parameter.shape:
            setattr(self, self._blob_names[index], parameter)
            self._param_blobs[index] = owner
        else:
            mine.lie_over(owner, tuple(mine.parameter.shape))

    def use_weights(self, index: int, owner: ParamBlob) -> bool:
        """Make blob `index` share the data of another net's blob. Returns False if it already does."""
        name, parameter = self._blob_names[index], owner.parameter
        if getattr(self, name) is parameter:
            return False
        if self._param_blobs[index].weights is not owner.weights:
            self._param_blobs[index] = self._param_blobs[index].apart(self, name)
            self._param_blobs[index].use_weights(owner)
        setattr(self, name, parameter)
        return True

    def attach(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        """Receive the net's blobs that the layer reads and writes. Called before `setup`; most layers ignore it."""

    def allocate(self, device: torch.device | str = "cpu") -> None:
        """Allocate and fill the blobs that have no memory yet, and move the other buffers to the device."""
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._blob_names:
                self._buffers[name] = buffer.to(device)
        for name in self._blob_names:
            blob = getattr(self, name)
            if not blob.is_meta or torch.device(device).type == "meta":
                continue
            value = self._first_values(blob.shape, self._fillers[name]).to(device)
            if isinstance(blob, nn.Parameter):
                setattr(self, name, nn.Parameter(value, requires_grad=blob.requires_grad))
            else:
                setattr(self, name, value)

    def _first_values(self, shape: torch.Size, fill: Any) -> Tensor:
        """Draw the first values on the CPU in C order: a seed gives the same values on all devices and layouts."""
        last = self.channels_last and len(shape) == 4
        if fill is None or filler.is_zero(fill):
            return lazy_zeros.zeros([shape[i] for i in (0, 2, 3, 1)]).movedim(3, 1) if last else lazy_zeros.zeros(shape)
        value = lazy_zeros.zeros(shape)
        filler.fill(value, fill)
        return torch.empty_like(value, memory_format=torch.channels_last).copy_(value) if last else value

    @property
    def effects_now(self) -> Effects:
        """The side effects of the next run. A layer may have fewer in TEST than `effects` declares."""
        return self.effects

    def repeating(self, random: RandomState | None = None, buffers: Held | None = None) -> AbstractContextManager[None]:
        """A context in which `forward` can be repeated: buffers and random generators are restored when it ends.

        `random`, a `RandomState.now()` taken before an earlier run, makes `forward` draw the numbers of that run.
        `buffers`, a `copy_of_buffers` taken before an earlier run, makes it start from the state of that run.
        If `effects_now` contains `CALLS`, a run cannot be undone.
        """
        return repeating(self, self.effects_now, random, buffers)

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Shape inference: the tops as meta tensors, for bottoms that are meta tensors."""
        with dry.FastShapes():
            return self.dry_run(*bottoms)

    def dry_run(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Run `forward` on meta tensors, with torch's own functions instead of the fast shape rules."""
        with dry.without_values(self), torch.no_grad():
            return as_tuple(self.forward(*bottoms))

    # -- helpers for checks ----------------------------------------------------------------------------------------

    def error(self, fact: str) -> NoReturn:
        """Raise a `LayerError` that names this layer. `fact` states what was found and expected, and how to fix it."""
        raise LayerError(f'layer "{self.name}" ({self.type}): {fact}').at(self.name)

    def require(self, condition: bool, fact: str) -> None:
        """Raise the error `fact` unless `condition` holds."""
        if not condition:
            self.error(fact)

    def axis(self, index: int, x: Tensor, what: str = "axis") -> int:
        """The axis `index` of x as a non-negative number. A negative `index` counts from the last axis."""
        if not -x.dim() <= index < x.dim():
            self.error(f"{what} {index} out of range for a bottom with {x.dim()} axes, shape {shape_text(x.shape)}")
        return index % x.dim() if x.dim() else 0

    def bottom_name(self, index: int) -> str:
        """The bottom's name for messages, such as `bottom "fc6"`."""
        return f'bottom "{self.spec.bottom[index]}"' if index < len(self.spec.bottom) else f"bottom {index}"

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={tuple(getattr(self, name).shape)}" for name in self._blob_names)

    def _check_counts(self) -> None:
        for kind, names, (least, most) in (
            ("bottom", self.spec.bottom, self.bottoms),
            ("top", self.spec.top, self.tops),
        ):
            if len(names) < least or (most is not None and len(names) > most):
                if least == most:
                    wanted = f"exactly {least}"
                else:
                    wanted = f"at least {least}" if most is None else f"{least} to {most}"
                self.error(f"has {len(names)} {kind} blob(s) {_quoted(names)}, expected {wanted}")


class Loss(Layer, abstract=True):
    """Base of the losses. The first top has loss weight 1 by default, and bottom 1 holds the labels."""

    default_loss_weight = 1.0
    auto_tops = True
    effects = Effects.CHECKS  # of labels
    constant: tuple[int, ...] = (1,)
    exempt: tuple[int, ...] = (1,)


class Source(Layer, abstract=True):
    """Base of the layers that load data into the net and have no bottoms.

    `setup` opens the source and sets `self.shapes`, the shapes of the tops. `deliver` returns the next batch, on any
    device, or None to keep the values that the user wrote to the tops. `forward` moves the batch to the net's device.
    """

    more_options: ClassVar[tuple[str, ...]] = ("transform_param", "data_param")
    effects = Effects.CALLS  # each run delivers the next batch
    shapes: list[tuple[int, ...]]
    device = torch.device("cpu")

    def deliver(self) -> tuple[Tensor | None, ...] | None:
        """The next values of the tops, on any device. None, for all tops or for one, keeps what the user wrote."""
        raise NotImplementedError(self.type)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor | None, ...] | None:
        tops = self.deliver()
        return None if tops is None else tuple(None if x is None else self.moved(x) for x in tops)

    def moved(self, x: Tensor) -> Tensor:
        """Copy x to the net's device. The copy is asynchronous if x is in pinned memory."""
        return x.to(self.device, non_blocking=True)

    def allocate(self, device: torch.device | str = "cpu") -> None:
        super().allocate(device)
        self.device = torch.device(device)

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        for name, shape in zip(self.spec.top, self.shapes, strict=False):
            check_size(f'top "{name}"', shape, self.error)
        return tuple(torch.empty(shape, device="meta") for shape in self.shapes)

    def position(self) -> bytes:
        """The position of the source in its data. A snapshot stores it, so that a resumed run reads the next record."""
        return b""

    def mark(self) -> Callable[[], bytes]:
        """A function that, called later, returns the present position. Cheaper than `position` if rarely called."""
        return partial(bytes, self.position())

    def seek(self, position: bytes) -> None:
        """Move to a position that `position` returned."""

    def check_position(self, position: bytes) -> None:
        """Raise an error if `seek` cannot move to this position. Does not move."""

    def own_batch(self, batch: int) -> int:
        """This process's batch size, where the prototxt gives the batch size of all processes together."""
        processes = shard.divisor() if self.phase == caffe_pb2.TRAIN else 1
        self.require(batch % processes == 0, f"batch_size {batch} cannot be divided among {processes} processes")
        return batch // processes

    def deal(self, first: int, step: int) -> bool:
        """Skip `first` batches, then deliver every `step`-th batch. Returns False if the source cannot skip batches."""
        return False

    def close(self) -> None:
        """Stop worker threads and close files."""


def as_tuple(tops: Tensor | tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
    """The result of `forward` as a tuple of tensors."""
    if tops is None:
        return ()
    return (tops,) if isinstance(tops, Tensor) else tuple(tops)


def shape_text(shape: Iterable[int]) -> str:
    """A shape as Caffe prints it: `2 3 5 7 (210)`."""
    sizes = list(shape)
    return " ".join([*map(str, sizes), f"({math.prod(sizes)})"])


def _quoted(names: Iterable[str]) -> str:
    return "(" + ", ".join(f'"{name}"' for name in names) + ")"
