"""What every layer is: a pure function of tensors with named, learnable blobs."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, ClassVar, NoReturn

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
from caffe.layers.support.values import exported, has_values, is_exported
from caffe.limits import check_size
from caffe.proto import caffe_pb2, extend
from caffe.registry import LAYERS

__all__ = ["Effects", "Layer", "Loss", "Lowering", "Source", "exported", "has_values", "is_exported"]


class Lowering(enum.Enum):
    """What a layer does in a net that runs in 16-bit numbers (caffe.net.plan.precision)."""

    NEVER = enum.auto()  # computes in float32: it sums up much, or small differences count
    FOLLOW = enum.auto()  # computes in the type of its bottoms, and makes tops of it; blobs are float32
    ALWAYS = enum.auto()  # gains by 16 bits: bottoms and blobs are converted


class Layer(nn.Module):
    """One layer of a net.

    A concrete class is a layer type: defining it registers it under the class name. Class arguments:

        bottoms, tops   how many blobs it reads and writes: a number, or (least, most) with None for no limit
        options         the field of LayerParameter that holds its options, found by the type's name if not given; or
                        the options of a type of your own, see caffe.layers.support.options.field_of
        abstract        True for a base class, which is not registered

    A subclass writes `setup`, which checks options and declares blobs, and `forward`, a pure function of its bottoms
    and blobs, from which gradients (autograd) and shapes (a run on meta tensors) follow. Where `forward` does more than
    that, `effects` says so.
    """

    type: ClassVar[str]  # type: ignore[assignment]
    bottoms: ClassVar[tuple[int, int | None]]
    tops: ClassVar[tuple[int, int | None]]
    options: ClassVar[str | None] = None
    defaults: ClassVar[Mapping[str, Any] | None] = None
    constant: tuple[int, ...] = ()
    """Bottoms that the layer has no gradient for; asking for one is an error."""
    exempt: tuple[int, ...] = ()
    """Bottoms that `force_backward` passes by, such as labels."""
    default_loss_weight: ClassVar[float] = 0.0
    """Weight of the first top in the net's loss where the prototxt gives none."""
    effects: Effects = Effects.NONE
    """What `forward` does beside computing the tops. A class without tops that does not say it is taken to act."""
    more_options: ClassVar[tuple[str, ...]] = ()
    """Fields of LayerParameter that the type reads beside `options`."""
    honours: ClassVar[tuple[str, ...]] = ()
    """Fields of forks, such as "TransformationParameter.resize_param", that the type has and others refuse."""
    without_effect: ClassVar[tuple[str, ...]] = ()
    """Options that change nothing in the fork that has them. A warning names those that are given."""
    channels_last: ClassVar[bool] = False
    """Whether blobs of 4 axes lie with the channels last, and tops with them: faster in convolutions."""
    lowering: Lowering = Lowering.NEVER
    """Whether the layer computes in 16 bits where the net does."""
    traceable: bool = True
    """Whether `forward` can be taken down, by torch.compile or for OpenVINO: it does not look at values, and calls no
    code but torch's."""
    lends: ClassVar[bool] = False
    """Whether the layer keeps the memory of the tops that `forward` returns, to read it or write into it later."""
    forgets_top: bool = False
    """Whether each run makes the top in new memory and backward does not read it: a later layer may overwrite it. Not
    inherited by a class that has a `forward` of its own."""
    splits: ClassVar[bool] = False
    """Whether the tops are the bottom, and backward adds their gradients. A run as one piece leaves the layer out."""
    user_fed: ClassVar[bool] = False
    """Whether the user fills the tops: they are inputs of the net."""
    takes_arrays: ClassVar[bool] = False
    """Whether `set_arrays` gives the layer its data and labels."""
    inner_layer: ClassVar[bool] = False
    """Whether Caffe makes a second layer inside this one, which its log names."""
    auto_tops: ClassVar[bool] = False
    """Whether tops that the prototxt leaves out are made, under the name "(automatic)"."""

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

    # -- what a layer type writes ----------------------------------------------------------------------------------

    # Both take tensors, as many as the layer has bottoms; written so that subclasses can name them.

    def setup(self, *bottoms: Any, **_: Any) -> None:
        """Check the options against the bottoms (meta tensors: shapes only) and declare blobs with `add_blob`."""

    def forward(self, *bottoms: Any, **_: Any) -> Any:
        """The tops, computed from the bottoms. Runs on meta tensors too: that is how shapes are found."""
        raise NotImplementedError(self.type)

    def example(self, index: int, x: Tensor) -> Tensor | None:
        """Values of x's shape for bottom `index`, where random numbers cannot be what it reads; for checks."""
        return None

    # -- what it is given ------------------------------------------------------------------------------------------

    @property
    def phase(self) -> int:
        """caffe_pb2.TRAIN or caffe_pb2.TEST, following `train()` and `eval()`."""
        return caffe_pb2.TRAIN if self.training else caffe_pb2.TEST

    @property
    def shares(self) -> bool:
        """Whether the tops are the first bottom itself, perhaps in another shape: a write to one shows in the other."""
        return False

    @property
    def shares_diff(self) -> bool:
        """Whether they are the same for the diff; only where they are for the data."""
        return self.shares

    def add_blob(self, name: str, shape: Sequence[int], fill: Any = None, trained: bool = True) -> None:
        """Declare the next blob, `self.<name>`, to be filled by the FillerParameter `fill` (zeros if None).

        A blob that is not `trained` (running statistics) is a buffer and never gets a gradient.
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
            filler.check(fill, self.error)

    def takes_buffer(self, name: str, shape: Sequence[int]) -> bool:
        """Whether a buffer `name` of this shape, from a solver state, can take the place of the layer's own.

        An axis of size 0 stands for one whose size the first batch decides.
        """
        own = self.state_dict(keep_vars=True)[name].shape
        return len(shape) == len(own) and all(a == b or 0 in (a, b) for a, b in zip(shape, own, strict=True))

    @property
    def tensors(self) -> list[Tensor]:
        """The layer's parameters and statistics in Caffe's order, as weight files store them."""
        return [getattr(self, name) for name in self._blob_names]

    @property
    def blobs(self) -> BlobVec:
        """The same as blobs, as pycaffe's users see them: with `data` and `diff`, numpy arrays over the same memory."""
        return BlobVec(self._param_blobs, f'layer "{self.name}" ({self.type})')

    @property
    def param_blobs(self) -> list[ParamBlob]:
        """The blobs of the layer, in Caffe's order."""
        return self._param_blobs

    def share_blob(self, index: int, owner: ParamBlob) -> None:
        """Use another layer's parameter, data and gradient both, in the place of blob `index`."""
        parameter, mine = owner.parameter, self._param_blobs[index]
        if parameter.shape == mine.parameter.shape:
            setattr(self, self._blob_names[index], parameter)
            self._param_blobs[index] = owner
        else:
            mine.lie_over(owner, tuple(mine.parameter.shape))

    def use_weights(self, index: int, owner: ParamBlob) -> bool:
        """Use the data of another net's blob in the place of blob `index`; returns whether that is a change."""
        name, parameter = self._blob_names[index], owner.parameter
        if getattr(self, name) is parameter:
            return False
        if self._param_blobs[index].weights is not owner.weights:
            self._param_blobs[index] = self._param_blobs[index].apart(self, name)
            self._param_blobs[index].use_weights(owner)
        setattr(self, name, parameter)
        return True

    def attach(self, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> None:
        """Hear, before `setup`, which blobs of a net the layer reads and writes. Most layers need tensors only."""

    def allocate(self, device: torch.device | str = "cpu") -> None:
        """Give blobs that are still without memory their memory and their first values, and move other buffers."""
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._blob_names:
                self._buffers[name] = buffer.to(device)
        for name in self._blob_names:
            blob = getattr(self, name)
            if not blob.is_meta:
                continue
            value = self._first_values(blob.shape, self._fillers[name]).to(device)
            if isinstance(blob, nn.Parameter):
                setattr(self, name, nn.Parameter(value, requires_grad=blob.requires_grad))
            else:
                setattr(self, name, value)

    def _first_values(self, shape: torch.Size, fill: Any) -> Tensor:
        """Drawn on the CPU and in C order: the same for a seed on every device and in every layout."""
        last = self.channels_last and len(shape) == 4
        if fill is None or filler.is_zero(fill):
            return lazy_zeros.zeros([shape[i] for i in (0, 2, 3, 1)]).movedim(3, 1) if last else lazy_zeros.zeros(shape)
        value = lazy_zeros.zeros(shape)
        filler.fill(value, fill)
        return torch.empty_like(value, memory_format=torch.channels_last).copy_(value) if last else value

    @property
    def effects_now(self) -> Effects:
        """Those of `effects` that the next run has: a layer may have none in TEST."""
        return self.effects

    def repeating(self, random: RandomState | None = None, buffers: Held | None = None) -> AbstractContextManager[None]:
        """Within it `forward` can be run again without a lasting change of state: buffers and random generators are
        put back afterwards. With `random`, `RandomState.now()` before another run, it draws that run's numbers; with
        `buffers`, `copy_of_buffers` before another run, it begins with that run's state.

        Where `effects_now` has `CALLS` a run cannot be undone.
        """
        return repeating(self, self.effects_now, random, buffers)

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """The tops as meta tensors for bottoms that are meta tensors."""
        with dry.FastShapes():
            return self.dry_run(*bottoms)

    def dry_run(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """What `forward` makes of bottoms that are meta tensors, every function of torch by torch itself."""
        with dry.without_values(self), torch.no_grad():
            return as_tuple(self.forward(*bottoms))

    # -- helpers for preconditions ---------------------------------------------------------------------------------

    def error(self, fact: str) -> NoReturn:
        """Raise a `LayerError` that names this layer. `fact` tells what is, what was expected and the way out."""
        raise LayerError(f'layer "{self.name}" ({self.type}): {fact}').at(self.name)

    def require(self, condition: bool, fact: str) -> None:
        """Raise the error `fact` unless `condition` holds."""
        if not condition:
            self.error(fact)

    def axis(self, index: int, x: Tensor, what: str = "axis") -> int:
        """`index` counted from the front; negative ones count from the end of x's axes."""
        if not -x.dim() <= index < x.dim():
            self.error(f"{what} {index} out of range for a bottom with {x.dim()} axes, shape {shape_text(x.shape)}")
        return index % x.dim() if x.dim() else 0

    def bottom_name(self, index: int) -> str:
        """`bottom "fc6"`, for messages."""
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
    """Base of the losses: the first top counts in the net's loss with weight 1, and bottom 1 holds labels."""

    default_loss_weight = 1.0
    auto_tops = True
    effects = Effects.CHECKS  # of labels
    constant: tuple[int, ...] = (1,)
    exempt: tuple[int, ...] = (1,)


class Source(Layer, abstract=True):
    """Base of layers without bottoms, which bring data into the net.

    `setup` opens the source and declares the tops' shapes by setting `self.shapes`; `deliver` returns the next batch,
    wherever it lies, or None to leave the tops as the user filled them; `forward` brings it to the net's device.
    """

    more_options: ClassVar[tuple[str, ...]] = ("transform_param", "data_param")
    effects = Effects.CALLS  # each run delivers the next batch
    shapes: list[tuple[int, ...]]
    device = torch.device("cpu")

    def deliver(self) -> tuple[Tensor | None, ...] | None:
        """The tops' next values, on any device. None, for all or for one, leaves a top as the user filled it."""
        raise NotImplementedError(self.type)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor | None, ...] | None:
        tops = self.deliver()
        return None if tops is None else tuple(None if x is None else self.moved(x) for x in tops)

    def moved(self, x: Tensor) -> Tensor:
        """x on the net's device; from pinned memory without waiting for the copy."""
        return x.to(self.device, non_blocking=True)

    def allocate(self, device: torch.device | str = "cpu") -> None:
        super().allocate(device)
        self.device = torch.device(device)

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        for name, shape in zip(self.spec.top, self.shapes, strict=False):
            check_size(f'top "{name}"', shape, self.error)
        return tuple(torch.empty(shape, device="meta") for shape in self.shapes)

    def position(self) -> bytes:
        """Where in its data the source stands: what a snapshot keeps so that a run resumes with the next record."""
        return b""

    def mark(self) -> Callable[[], bytes]:
        """A function that tells later what `position` tells now: for those who mark each step and rarely ask."""
        return partial(bytes, self.position())

    def seek(self, position: bytes) -> None:
        """Go to a place that `position` returned."""

    def check_position(self, position: bytes) -> None:
        """Raise an error for a position that `seek` cannot go to; moves nothing."""

    def own_batch(self, batch: int) -> int:
        """This process's part of the batch that the file gives, where that is the batch of all processes."""
        processes = shard.divisor() if self.phase == caffe_pb2.TRAIN else 1
        self.require(batch % processes == 0, f"batch_size {batch} cannot be divided among {processes} processes")
        return batch // processes

    def deal(self, first: int, step: int) -> bool:
        """Deliver every `step`-th batch from now on, after passing over `first`; False where it can pass over none."""
        return False

    def close(self) -> None:
        """Stop worker threads and close files."""


def as_tuple(tops: Tensor | tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
    """What `forward` returned, as a tuple of tensors."""
    if tops is None:
        return ()
    return (tops,) if isinstance(tops, Tensor) else tuple(tops)


def shape_text(shape: Iterable[int]) -> str:
    """A shape as Caffe prints it: `2 3 5 7 (210)`."""
    sizes = list(shape)
    return " ".join([*map(str, sizes), f"({math.prod(sizes)})"])


def _quoted(names: Iterable[str]) -> str:
    return "(" + ", ".join(f'"{name}"' for name in names) + ")"
