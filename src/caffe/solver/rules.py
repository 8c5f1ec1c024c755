"""Update rules: what a solver type does with a gradient.

Defining the class makes the solver type known. A rule states its arithmetic in `step`, for one tensor or any part of
one; `apply` does all that comes around it (clipping, iter_size, weight decay, the subtraction). Large tensors are
updated in pieces small enough to stay in the processor's cache, so memory is passed over once whatever a rule computes.
A rule may have a `kernel` of torch (kernels.py), which computes the same; a test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import Tensor

from caffe.errors import SolverError
from caffe.net import Net
from caffe.registry import Registry
from caffe.solver.kernels import AdamKernel, Kernel, NesterovKernel, SgdKernel
from caffe.solver.update import Update

__all__ = ["Rule", "Update", "rule_class", "rule_types"]

RULES: Registry[type[Rule]] = Registry("solver type", SolverError)


class Rule:
    """An update rule; its class name is the solver `type` of the prototxt.

    `history` counts the tensors that it keeps per learnable blob, all zero at first. In a .solverstate lie every first
    one, then every second one. After `apply`, a blob's diff holds what was subtracted from its data, as in Caffe.
    """

    history: ClassVar[int] = 1
    whole: ClassVar[bool] = False
    """Whether a step needs all of a tensor, such as its norm, and not just any part."""
    norms: ClassVar[bool] = False
    """Whether a step that needs all of a tensor needs its norms only, by `Update.norm`."""
    decoupled: ClassVar[bool] = False
    """Whether weight decay shrinks the weights beside the step instead of adding to the gradient."""
    parallel: ClassVar[bool] = True
    """Whether a step needs nothing but the mean gradient, so that several processes can train together."""
    options: ClassVar[tuple[str, ...]] = ()
    """The fields from 20000 up that the rule reads."""
    kernel: ClassVar[Kernel | None] = None
    """What computes the same as `step` in one pass over memory, where it fits."""

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
        if self.kernel is not None and self.kernel.groups:
            updates = self.kernel.take(updates, self.param, scale)
        for part in (part for update in updates for part in ([update] if self.whole else update.pieces())):
            if scale != 1:
                part.diff.mul_(scale)
            self.update(part, t)

    def update(self, part: Update, t: int) -> None:
        """Update one tensor or piece: g <- g + decay w (or sign w), then w <- w - step."""
        if self.kernel is not None and self.kernel.run(part, self.param, t):
            return
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

    kernel = SgdKernel()

    def step(self, g: Tensor, rate: float, t: int, v: Tensor) -> Tensor:  # type: ignore[override]
        return v.mul_(self.param.momentum).add_(g, alpha=rate)


class Nesterov(Rule):
    """Nesterov's accelerated gradient: as momentum, with the gradient taken one step ahead.

        v' <- mu v + rate g
        w  <- w - ((1 + mu) v' - mu v)

    Source: Sutskever et al., ICML 2013; BVLC nesterov_solver.cpp.
    """

    kernel = NesterovKernel()

    def step(self, g: Tensor, rate: float, t: int, v: Tensor) -> Tensor:  # type: ignore[override]
        mu = self.param.momentum
        back = v * mu
        v.mul_(mu).add_(g, alpha=rate)
        return back.neg_().add_(v, alpha=1 + mu)


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
    kernel = AdamKernel()

    def check(self) -> None:
        self.between("momentum", "momentum2")

    def step(self, g: Tensor, rate: float, t: int, m: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
        b1, b2 = self.param.momentum, self.param.momentum2
        m.mul_(b1).add_(g, alpha=1 - b1)
        v.mul_(b2).addcmul_(g, g, value=1 - b2)
        correction = math.sqrt(1 - b2**t) / (1 - b1**t)
        return m.div(v.sqrt().add_(self.param.delta)).mul_(rate * correction)


def rule_class(type_name: str) -> type[Rule]:
    """The rule of a solver type, or a `SolverError` with the nearest known name."""
    return RULES.find(type_name)


def rule_types() -> list[str]:
    """The names of all solver types, sorted."""
    return RULES.names()
