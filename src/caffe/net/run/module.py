"""NetModule: the same graph as one `torch.nn.Module`, run as one piece."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from caffe.blob import Blob
from caffe.errors import NetError, did_you_mean
from caffe.layers.base import Source
from caffe.net.build import Step
from caffe.net.engines.cudagraph import Record, Recorder, cuda_recorder, recorded
from caffe.net.gradients import loss_with_gradient_of, roots
from caffe.net.run.allocator import keep_freed_memory, large_blocks_apart
from caffe.net.run.loss_scale import LossScale
from caffe.net.run.precision import LowPrecision
from caffe.net.run.rewrite import REWRITES, Call, Rewrite, rewrite
from caffe.parameter_memory import collect_lent_copies

__all__ = ["NetModule"]

_NO_HISTORY = (
    "cannot run backward by itself: the last run was one of the whole net, which keeps no layer's history; run "
    "net.forward() before net.backward(), and net.stepwise() before both if it is optimised"
)
_NO_DIFF = (
    'blob "{}": the last training step, which ran the net as one piece, did not keep its diff; to see it, run '
    "net.forward() and net.backward(), or set net.keep_diffs = True before the step"
)
_UNFINISHED = 'blob "{}": the last run of the net ended in an error before it filled this blob; run the net again'


class NetModule(nn.Module):
    """A net's layers as sub-modules, under their names, and its graph as `forward`.

    `forward(**inputs)` takes tensors for the net's Input blobs, by default the data they hold, and returns the loss (a
    scalar with autograd's history) and every blob's tensor by name. Split layers, which only exist to add gradients,
    are left to autograd, and `caffe.net.run.rewrite` merges what runs faster as one. With a `precision` of 16 bits
    layers run as `caffe.net.run.precision` says; blobs, weights and gradients are float32 all the same.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        name: str = "",
        precision: torch.dtype = torch.float32,
        scale: LossScale | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self._calls: list[Call] = []
        self._losses: list[tuple[int, float]] = []
        self._roots: list[tuple[int, float]] = []  # from where backward starts; mostly `_losses`
        self._place: dict[str, int] = {}  # where the present value of a blob is
        self._same: dict[str, tuple[Blob, bool]] = {}  # blobs that share the data (and the diff) of another
        self._lent: set[int] = set()  # places whose memory the layer keeps
        self._fed: set[int] = set()  # places of sources, which may leave blobs to the user
        self._blobs = {blob.name: blob for step in steps for blob in step.tops}
        self._steps = list(steps)
        self._delivered = [blob for step in steps if isinstance(step.layer, Source) for blob in step.tops]
        self._computed = [blob for step in steps if not isinstance(step.layer, Source) for blob in step.tops]
        self._given_gradients = [
            blob for step in steps for blob, need in zip(step.bottoms, step.needs, strict=True) if need
        ]
        self._count = 0
        self._trained = False  # whether a training pass was made
        self.record: Record | None = None
        used: set[str] = set()
        starts, places = roots(steps), dict[Blob, int]()
        for step in steps:
            places.update(zip(step.tops, self._plan(step), strict=True))
            if step.layer.type != "Split":
                self.add_module(module_name(step.layer.name, used), step.layer)
        self._roots = [(places[blob], weight) for blob, weight in starts.items()]
        self._scale = scale
        self._low = None if precision is torch.float32 else LowPrecision(precision, scale)
        self.use_calls(self._prepared(self._calls))
        keep_freed_memory()

    def use_calls(self, calls: list[Call]) -> None:
        """Run these calls from now on, which must read and write what the module's own do."""
        self._calls = calls

    def _prepared(self, calls: list[Call]) -> list[Call]:
        return rewrite(self._lowered(calls), self._wanted_places(), self._rewrites())

    def _lowered(self, calls: list[Call]) -> list[Call]:
        if self._low is not None:
            calls, self._count = self._low.lower(calls, self._count, self._loss_places())
        return calls

    def _wanted_places(self) -> frozenset[int]:
        """Places whose values must be there at the end."""
        return self._loss_places().union(self._place.values())

    def _loss_places(self) -> frozenset[int]:
        """Places of the values that make the loss and of those from which backward starts."""
        return frozenset(place for place, _ in (*self._losses, *self._roots))

    def _rewrites(self) -> Sequence[Rewrite]:
        return REWRITES

    def _plan(self, step: Step) -> tuple[int, ...]:
        """Add the step's call; returns the places of its tops."""
        needs = zip(step.bottoms, step.needs, strict=True)
        reads = tuple((self._place[blob.name], not need) for blob, need in needs)
        if step.layer.type == "Split":
            writes = (reads[0][0],) * len(step.tops)
        else:
            writes = tuple(range(self._count, self._count + len(step.tops)))
            self._count += len(writes)
            call = Call(step.layer, step.layer.forward, reads, writes, tuple(step.tops), step.backward)
            self._calls.append(call)
        for blob, place in zip(step.tops, writes, strict=True):
            self._place[blob.name] = place
            if step.shares and not blob.alone:
                self._same[blob.name] = step.bottoms[0], step.layer.shares_diff
            else:
                self._same.pop(blob.name, None)
        if step.layer.lends:
            self._lent.update(writes)
        if isinstance(step.layer, Source):
            self._fed.update(writes)
        self._losses += [(place, weight) for place, weight in zip(writes, step.loss_weights, strict=True) if weight]
        return writes

    def forward(self, **inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self._check(inputs)
        collect_lent_copies()
        values = self._run(inputs)
        return self._loss(values), self._named(values)

    def _check(self, inputs: dict[str, Tensor]) -> None:
        """Raise NetError for tensors that are no input's, or do not have its shape but for the number of rows."""
        known = {blob.name: blob for step in self._steps if step.layer.type == "Input" for blob in step.tops}
        for name, value in inputs.items():
            if name not in known:
                hint = did_you_mean(name, known)
                raise NetError(f'net "{self.name}" has no input "{name}"{hint} (inputs: {", ".join(known) or "none"})')
            shape = known[name].shape
            if not isinstance(value, Tensor) or value.dim() != len(shape) or tuple(value.shape[1:]) != shape[1:]:
                given = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"no tensor: {type(value)}"
                raise NetError(
                    f'net "{self.name}": what was given for input "{name}" is {given}; expected a tensor of shape '
                    f"{shape}, or of another number of rows; for another shape, reshape the blob and call net.reshape()"
                )

    def _named(self, values: Sequence[Tensor]) -> dict[str, Tensor]:
        return {name: self._wide(values[place]) for name, place in self._place.items()}

    def _wide(self, value: Tensor) -> Tensor:
        return value.float() if self._low is not None else value

    def _run(self, inputs: dict[str, Tensor], given: Sequence[Tensor] | None = None) -> list[Tensor]:
        """The values at all places; `given` are those of the sources, where these have run already."""
        values = self._begin(given)
        grad = torch.is_grad_enabled()
        for call in self._calls:
            if given is not None and isinstance(call.layer, Source):
                continue
            with torch.set_grad_enabled(grad and call.backward):
                made = self._made(call, values, inputs)
            for place, value in zip(call.writes, made, strict=True):
                values[place] = value
            for place in call.frees:
                values[place] = None  # type: ignore[call-overload]
            made = ()
        return values

    def _source_places(self) -> list[int]:
        return [place for call in self._calls if isinstance(call.layer, Source) for place in call.writes]

    def _source_values(self) -> list[Tensor]:
        """The next values of the sources: what comes into the net from outside."""
        tops = ((call, call.run()) for call in self._calls if isinstance(call.layer, Source))
        return [x for call, made in tops for x in call.tops(made)]

    def _begin(self, given: Sequence[Tensor] | None) -> list[Tensor]:
        if self._low is not None:
            self._low.refresh(always=torch.is_grad_enabled())
        values: list[Tensor] = [None] * self._count  # type: ignore[list-item]
        for place, value in zip(self._source_places(), given, strict=True) if given is not None else ():
            values[place] = value
        return values

    @staticmethod
    def _made(call: Call, values: Sequence[Tensor], inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """What the call makes of the values."""
        bottoms = [values[place].detach() if cut else values[place] for place, cut in call.reads]
        made = None if inputs and call.layer.type == "Input" else call.run(*bottoms)
        return call.tops(made, inputs)

    def _loss(self, values: Sequence[Tensor]) -> Tensor:
        """The loss, with the gradient that backward starts from; see caffe.net.gradients.roots."""
        loss = _weighted(values, self._losses)
        if sorted(self._roots) == sorted(self._losses) or not torch.is_grad_enabled():
            return loss
        return loss_with_gradient_of(loss, _weighted(values, self._roots))

    def forward_backward(self) -> float:
        """One pass forward and backward; adds to the parameters' gradients and fills the blobs; returns the loss."""
        self._let_go()
        given = self._source_values()
        scale = 0.0 if self._scale is None else self._scale.value
        with nullcontext() if self._trained else large_blocks_apart():
            values, loss = self._pass(given) if self.record is None else self.record.run(given, scale)
        self._trained = True
        self._fill(values)
        for blob in self._given_gradients:
            blob.drop_diff(_NO_DIFF.format(blob.name))
        return float(loss)

    def _pass(self, given: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        with torch.enable_grad():
            values = self._run({}, given)
            loss = self._loss(values)
        if loss.requires_grad:
            loss.backward()
        return values, loss.detach()

    def record_on(self, device: torch.device, recorder: Recorder = cuda_recorder) -> None:
        """Run training passes from a record where `device` is a GPU; see caffe.net.engines.cudagraph."""
        if recorded(device):
            layers = [call.layer for call in self._calls if not isinstance(call.layer, Source)]
            self.record = Record(self._pass, list(self.parameters()), recorder, layers)

    def evaluate(self) -> float:
        """One pass forward without autograd's history; fills the blobs; returns the loss."""
        self._let_go()
        with torch.no_grad():
            values = self._run({})
            loss = self._loss(values)
        self._fill(values)
        return float(loss)

    def _let_go(self) -> None:
        """Free what the last run left in the blobs, so that the memory serves this one."""
        delivered = {id(blob.data_memory) for blob in self._delivered}  # which blobs behind a Split share
        for blob in self._computed:
            if not blob.data_memory.lent and id(blob.data_memory) not in delivered:
                blob.drop(_UNFINISHED.format(blob.name))

    def _fill(self, values: Sequence[Tensor]) -> None:
        self._refill([(self._blobs[name], place) for name, place in self._place.items()], values)

    def _refill(self, filled: Sequence[tuple[Blob, int]], values: Sequence[Tensor]) -> None:
        """Give blobs their values, and forget what a run layer by layer left for backward.

        Values may lie in one memory: those of Slice lie in its bottom's, for example. Their blobs must know.
        """
        self._forget_histories()
        owners: dict[int, Blob] = {}
        for blob, place in filled:
            value = values[place]
            value = value.detach() if value.requires_grad else value
            if blob.name in self._same:
                other, diff = self._same[blob.name]
                blob.share(other, tuple(value.shape), diff)
                continue
            owner = owners.setdefault(value.untyped_storage().data_ptr(), blob)
            if place in self._fed and values[place] is blob.data_memory.raw:
                continue  # the user fills this blob
            if owner is not blob and not owner.data_memory.share():
                value = value.clone()
            blob.write(value, private=owner is blob, foreign=place in self._lent or not self.owns_values)

    def _forget_histories(self) -> None:
        if self._steps and self._steps[0].last_run.stepwise:
            for step in self._steps:
                step.history, step.missing_diffs = _NO_HISTORY, True
            self._steps[0].last_run.stepwise = False

    @property
    def owns_values(self) -> bool:
        """Whether each run makes its values in new memory, which blobs can take over."""
        return self.record is None or not self.record.replays


def _weighted(values: Sequence[Tensor], weights: Sequence[tuple[int, float]]) -> Tensor:
    """The sum of the values at these places, each with its weight."""
    sums = [(values[place].sum() if values[place].dim() else values[place], weight) for place, weight in weights]
    weighted = [x if weight == 1 else x * weight for x, weight in sums]
    if not weighted:
        return torch.zeros((), device=next((x.device for x in values if x is not None), None))
    return sum(weighted[1:], weighted[0])


def module_name(layer_name: str, used: set[str]) -> str:
    """A name that torch accepts for a sub-module: dots become underscores, and repeats are numbered."""
    base = name = re.sub(r"\.", "_", layer_name) or "layer"
    count = 1
    while name in used or name in dir(nn.Module):
        count += 1
        name = f"{base}_{count}"
    used.add(name)
    return name
