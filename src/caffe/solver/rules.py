"""Update rules: what a solver type does with a gradient.

Defining the class makes the solver type known. A rule states its arithmetic in `step`, for one tensor or any part of
one; `apply` does all that comes around it (clipping, iter_size, weight decay, the subtraction). Large tensors are
updated in pieces small enough to stay in the processor's cache, so memory is passed over once whatever a rule computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from caffe import torch_internals
from caffe.blob import ParamBlob
from caffe.errors import SolverError
from caffe.net import Net
from caffe.registry import Registry

__all__ = ["Rule", "Update", "alike", "fused_adam", "rule_class", "rule_types"]

RULES: Registry[type[Rule]] = Registry("solver type", SolverError)
_PIECE = 1 << 18
"""Elements of a piece: the fastest of 2^15 to 2^22 on a processor with 2 MB of cache a core."""


@dataclass
class Update:
    """What one tensor needs for its update: data, gradient, histories (all of one shape), and its own constants."""

    data: Tensor
    diff: Tensor
    history: Sequence[Tensor]
    rate: float
    decay: float
    owner: ParamBlob | None = None
    """The blob whose diff `diff` is, where nothing else shares that memory."""

    def subtracted(self, amount: Tensor) -> None:
        """Make `amount`, what was subtracted from the data, the diff; copied only where somebody looks at it."""
        if self.owner is None:
            self.diff.copy_(amount)
        else:
            self.owner.borrow_diff(amount)

    def pieces(self) -> Iterator[Update]:
        """This update as updates of consecutive parts; itself where it is small or its tensors lie differently."""
        tensors = (self.data, self.diff, *self.history)
        if self.data.device.type != "cpu" or self.data.numel() <= _PIECE or not alike(tensors):
            yield self
            return
        parts = (flat(tensor).split(_PIECE) for tensor in tensors)
        for data, diff, *history in zip(*parts, strict=True):
            yield Update(data, diff, history, self.rate, self.decay)


class Rule:
    """An update rule; its class name is the solver `type` of the prototxt.

    `history` counts the tensors that it keeps per learnable blob, all zero at first. In a .solverstate lie every first
    one, then every second one. After `apply`, a blob's diff holds what was subtracted from its data, as in Caffe.
    """

    history: ClassVar[int] = 1
    whole: ClassVar[bool] = False
    """Whether a step needs all of a tensor, such as its norm, and not just any part."""
    decoupled: ClassVar[bool] = False
    """Whether weight decay shrinks the weights beside the step instead of adding to the gradient."""
    options: ClassVar[tuple[str, ...]] = ()
    """The fields from 20000 up that the rule reads."""

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not abstract:
            RULES.add(cls.__name__, cls)

    def __init__(self, param: Any) -> None:
        """`param` is the SolverParameter, read anew at every update."""
        self.param = param
        self.check()

    def check(self) -> None:
        """Raise a `SolverError` for settings that the rule cannot work with."""

    def bind(self, net: Net) -> None:
        """Hear of the net that will be trained, before it is."""

    def memory(self) -> dict[str, Tensor]:
        """What the rule keeps beside the histories, for snapshots."""
        return {}

    def check_memory(self, memory: Mapping[str, Tensor]) -> None:
        """Raise a `SolverError` for what `recall` cannot take; changes nothing."""

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Take back what `memory` gave and `check_memory` has seen."""

    def step(self, g: Tensor, rate: float, t: int, *history: Tensor) -> Tensor:
        """What to subtract from the weights for the gradient `g`; changes the histories in place. t = iter + 1."""
        raise NotImplementedError(type(self).__name__)

    def apply(self, updates: Iterable[Update], t: int, scale: float) -> None:
        """Update tensors: g <- scale g, then `update`; piece by piece, unless the rule needs them whole."""
        for part in (part for update in updates for part in ([update] if self.whole else update.pieces())):
            if scale != 1:
                part.diff.mul_(scale)
            self.update(part, t)

    def update(self, part: Update, t: int) -> None:
        """Update one tensor or piece: g <- g + decay w (or sign w), then w <- w - step."""
        w, g = part.data, part.diff
        if not self.decoupled:
            self.penalize(part, part.decay)
        g.copy_(self.step(g, part.rate, t, *part.history))
        if self.decoupled:
            self.penalize(part, part.rate * part.decay)
        w.sub_(g)

    def penalize(self, part: Update, factor: float) -> None:
        """Add the weight decay's gradient, `factor` times, to the diff."""
        if factor:
            w = part.data
            part.diff.add_(w.sign() if self.param.regularization_type == "L1" else w, alpha=factor)

    def between(self, *names: str) -> None:
        """Require fields of at least 0 and below 1."""
        for name in names:
            value = getattr(self.param, name)
            self.require(0 <= value < 1, f"{name} is {value:g}, expected at least 0 and below 1")

    def require(self, condition: bool, fact: str) -> None:
        """Raise the error `fact` unless `condition` holds."""
        if not condition:
            raise SolverError(f'solver type "{type(self).__name__}": {fact}')


class SGD(Rule):
    """Stochastic gradient descent with momentum.

        v <- mu v + rate g
        w <- w - v

    The rate is inside v: torch.optim.SGD keeps it outside, which differs as soon as the rate changes.
    Source: BVLC sgd_solver.cpp.
    """

    def step(self, g: Tensor, rate: float, t: int, v: Tensor) -> Tensor:  # type: ignore[override]
        return v.mul_(self.param.momentum).add_(g, alpha=rate)

    def apply(self, updates: Iterable[Update], t: int, scale: float) -> None:
        """As the base, by torch's one-pass kernel where it fits."""
        groups: dict[tuple[float, float], list[Update]] = {}
        for update in updates:
            if _fits_fused_sgd(update, scale, self.param):
                groups.setdefault((update.rate, update.decay), []).append(update)
            else:
                super().apply([update], t, scale)
        for group in groups.values():
            _fused_sgd(group, self.param.momentum, scale, nesterov=False)
            for update in group:
                update.subtracted(update.history[0])


class Nesterov(Rule):
    """Nesterov's accelerated gradient: as momentum, with the gradient taken one step ahead.

        v' <- mu v + rate g
        w  <- w - ((1 + mu) v' - mu v)

    Source: Sutskever et al., ICML 2013; BVLC nesterov_solver.cpp.
    """

    def step(self, g: Tensor, rate: float, t: int, v: Tensor) -> Tensor:  # type: ignore[override]
        mu = self.param.momentum
        back = v * mu
        v.mul_(mu).add_(g, alpha=rate)
        return back.neg_().add_(v, alpha=1 + mu)

    def update(self, part: Update, t: int) -> None:
        """As the base, by torch's one-pass kernel where it fits: w <- w - (rate g + mu v'), which is the same."""
        if not _fits_fused_sgd(part, 1.0, self.param):
            super().update(part, t)
            return
        before = part.data.clone()
        _fused_sgd([part], self.param.momentum, 1.0, nesterov=True)
        torch.sub(before, part.data, out=part.diff)


def _fused_sgd(group: Sequence[Update], momentum: float, scale: float, nesterov: bool) -> None:
    """torch's kernel for updates of one rate and decay: v <- mu v + rate (scale g + decay w), and w.

    The rate stands in for 1 - dampening, as the kernel has it; Nesterov's step takes the gradient without that, so it
    has to be scaled, which costs a pass of writing.
    """
    rate, decay = group[0].rate, group[0].decay
    tensors = ((update.data, update.diff, update.history[0]) for update in group)
    data, diffs, velocities = zip(*(map(flat, parts) for parts in tensors), strict=True)
    scaled = torch.tensor(1 / (rate * scale), device=velocities[0].device) if nesterov else None
    assert torch_internals.fused_sgd is not None
    torch_internals.fused_sgd(
        data,
        diffs,
        velocities,
        weight_decay=rate * decay if nesterov else decay / scale,
        momentum=momentum,
        lr=1.0,
        dampening=0.0 if nesterov else 1 - rate * scale,
        nesterov=nesterov,
        maximize=False,
        is_first_step=False,
        grad_scale=scaled,
    )


def _fits_fused_sgd(update: Update, scale: float, param: Any) -> bool:
    """Whether the kernel can do this update; the factor of the gradient must be more than rounding beside 1."""
    w = update.data
    l1 = update.decay != 0 and param.regularization_type == "L1"
    plain = param.momentum != 0 and abs(update.rate * scale) > 1e-8 and not l1
    kernel = w.dtype == torch.float32 and w.device.type in ("cpu", "cuda")
    known = torch_internals.fused_sgd is not None
    return plain and kernel and known and alike((w, update.diff, *update.history))


class AdaGrad(Rule):
    """AdaGrad: each weight's rate shrinks with all its gradients so far.

        h <- h + g^2
        w <- w - rate g / (sqrt(h) + delta)

    Source: Duchi et al., JMLR 12, 2011; BVLC adagrad_solver.cpp.
    """

    def check(self) -> None:
        self.require(self.param.momentum == 0, f"cannot be used with momentum ({self.param.momentum:g}); remove it")

    def step(self, g: Tensor, rate: float, t: int, h: Tensor) -> Tensor:  # type: ignore[override]
        h.addcmul_(g, g)
        return g.div(h.sqrt().add_(self.param.delta)).mul_(rate)


class RMSProp(Rule):
    """RMSProp: each weight's rate is divided by a running root mean square of its gradient.

        h <- d h + (1 - d) g^2
        w <- w - rate g / (sqrt(h) + delta)

    d = rms_decay.
    Source: Tieleman & Hinton, Coursera lecture 6.5, 2012; BVLC rmsprop_solver.cpp.
    """

    def check(self) -> None:
        self.require(self.param.momentum == 0, f"cannot be used with momentum ({self.param.momentum:g}); remove it")
        self.between("rms_decay")

    def step(self, g: Tensor, rate: float, t: int, h: Tensor) -> Tensor:  # type: ignore[override]
        decay = self.param.rms_decay
        h.mul_(decay).addcmul_(g, g, value=1 - decay)
        return g.div(h.sqrt().add_(self.param.delta)).mul_(rate)


class AdaDelta(Rule):
    """AdaDelta: steps as large as earlier steps, in proportion to the gradient against earlier gradients.

        h <- mu h + (1 - mu) g^2
        u = g sqrt((s + delta) / (h + delta))
        s <- mu s + (1 - mu) u^2
        w <- w - rate u

    mu = momentum. The paper has no rate: base_lr is 1 there.
    Source: Zeiler, arXiv:1212.5701; BVLC adadelta_solver.cpp.
    """

    history = 2

    def step(self, g: Tensor, rate: float, t: int, h: Tensor, s: Tensor) -> Tensor:  # type: ignore[override]
        mu, delta = self.param.momentum, self.param.delta
        h.mul_(mu).addcmul_(g, g, value=1 - mu)
        u = ((s + delta) / (h + delta)).sqrt_().mul_(g)
        s.mul_(mu).addcmul_(u, u, value=1 - mu)
        return u.mul_(rate)


class Adam(Rule):
    """Adam: momentum on the gradient, scaled by a running second moment.

        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) g^2
        w <- w - rate sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + delta)

    b1 = momentum, b2 = momentum2, t = iter + 1.  delta is the paper's eps-hat: not torch.optim.Adam's eps.
    Source: Kingma & Ba, arXiv:1412.6980, end of section 2; BVLC adam_solver.cpp.
    """

    history = 2

    def check(self) -> None:
        self.between("momentum", "momentum2")

    def step(self, g: Tensor, rate: float, t: int, m: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
        b1, b2 = self.param.momentum, self.param.momentum2
        m.mul_(b1).add_(g, alpha=1 - b1)
        v.mul_(b2).addcmul_(g, g, value=1 - b2)
        correction = math.sqrt(1 - b2**t) / (1 - b1**t)
        return m.div(v.sqrt().add_(self.param.delta)).mul_(rate * correction)

    def update(self, part: Update, t: int) -> None:
        """As the base, by torch's one-pass kernel where it fits; its eps is delta / sqrt(1 - b2^t)."""
        l1 = part.decay != 0 and self.param.regularization_type == "L1"
        eps = self.param.delta / math.sqrt(1 - self.param.momentum2**t)
        if l1 or not fused_adam(torch_internals.fused_adam, part, self.param, t, eps):
            super().update(part, t)


def fused_adam(kernel: Callable[..., None] | None, part: Update, param: Any, t: int, eps: float) -> bool:
    """Update by torch's `_fused_adam_` or `_fused_adamw_`; False, and nothing done, where they do not fit."""
    w, g, (m, v) = part.data, part.diff, part.history
    if (
        kernel is None
        or not alike((w, g, m, v))
        or w.dtype not in (torch.float32, torch.float64)
        or w.device.type not in ("cpu", "cuda")
    ):
        return False
    before = w.clone()
    kernel(
        [w],
        [g],
        [m],
        [v],
        [],
        [torch.tensor(float(t), device=w.device)],
        lr=part.rate,
        beta1=param.momentum,
        beta2=param.momentum2,
        weight_decay=part.decay,
        eps=eps,
        amsgrad=False,
        maximize=False,
    )
    torch.sub(before, w, out=g)
    return True


def rule_class(type_name: str) -> type[Rule]:
    """The rule of a solver type, or a `SolverError` with the nearest known name."""
    return RULES.find(type_name)


def rule_types() -> list[str]:
    """The names of all solver types, sorted."""
    return RULES.names()


def flat(tensor: Tensor) -> Tensor:
    """A dense tensor's elements in the order of memory; torch's kernels copy what has its channels last."""
    return tensor.as_strided((tensor.numel(),), (1,))


def alike(tensors: Sequence[Tensor]) -> bool:
    """Whether the tensors lie in memory in the same order, without gaps, in one type and on one device."""
    first = tensors[0]
    dense = first.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(first)
    return dense and all(
        tensor.stride() == first.stride() and tensor.dtype == first.dtype and tensor.device == first.device
        for tensor in tensors
    )
