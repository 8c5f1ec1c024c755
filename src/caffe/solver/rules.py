"""Update rules: how a solver type computes the weight update from a gradient.

A solver type is registered by defining its class. A rule defines its arithmetic in `step`, for one tensor or a part of
one. `apply` does the rest: clipping, iter_size, weight decay and the subtraction. Large tensors are updated in pieces
that fit into the processor's cache, so each update makes one pass over memory, for any rule. A rule can name one of
torch's fused kernels (kernels.py) that computes the same; a test compares the two.
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

    `history` is the number of history tensors per learnable blob; they start at zero. A .solverstate stores the first
    history of all blobs, then the second. After `apply`, a blob's diff holds the amount that was subtracted from its
    data, as in Caffe.
    """

    history: ClassVar[int] = 1
    whole: ClassVar[bool] = False
    """Whether `step` needs the whole tensor, for example for its norm.

    Otherwise it can be called for parts of a tensor.
    """
    norms: ClassVar[bool] = False
    """Whether a `step` that needs the whole tensor needs only its norms, which `Update.norm` computes."""
    decoupled: ClassVar[bool] = False
    """Whether weight decay is subtracted from the weights separately from the step, instead of added to the
    gradient.
    """
    parallel: ClassVar[bool] = True
    """Whether the mean gradient is all that a step needs, so that several processes can train together."""
    options: ClassVar[tuple[str, ...]] = ()
    """The solver fields, numbered from 20000, that the rule uses."""
    kernel: ClassVar[Kernel | None] = None
    """A fused kernel that computes the same as `step` in one pass over memory, for the tensors that it supports."""

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not abstract:
            RULES.add(cls.__name__, cls)

    def __init__(self, param: Any) -> None:
        """`param` is the SolverParameter. It is read in every update, so later changes take effect."""
        self.param = param
        self.check()

    def check(self) -> None:
        """Raise a `SolverError` for settings that the rule cannot use."""

    def bind(self, net: Net) -> None:
        """Called once with the net to train, before training starts."""

    def memory(self) -> dict[str, Tensor]:
        """Return the rule's state besides the histories, for snapshots."""
        return {}

    def check_memory(self, memory: Mapping[str, Tensor]) -> None:
        """Raise a `SolverError` for a memory that `recall` cannot use. Changes nothing."""

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Restore the result of `memory`, which `check_memory` has accepted."""

    def step(self, g: Tensor, rate: float, t: int, *history: Tensor) -> Tensor:
        """Return the amount to subtract from the weights for the gradient `g`.

        Updates the histories in place. t = iter + 1.
        """
        raise NotImplementedError(type(self).__name__)

    def apply(self, updates: Iterable[Update], t: int, scale: float) -> None:
        """Update tensors: g <- scale g, then `update`.

        Tensors are divided into pieces unless the rule needs them whole.
        """
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
        """Add the gradient of the weight decay, times `factor`, to the diff."""
        if factor:
            w = part.data
            part.diff.add_(w.sign() if self.param.regularization_type == "L1" else w, alpha=factor)

    def between(self, *names: str) -> None:
        """Require these fields to be at least 0 and below 1."""
        for name in names:
            value = getattr(self.param, name)
            self.require(0 <= value < 1, f"{name} is {value:g}, expected at least 0 and below 1")

    def require(self, condition: bool, fact: str) -> None:
        """Raise a SolverError with the text `fact` unless `condition` is true."""
        if not condition:
            raise SolverError(f'solver type "{self.param.type}": {fact}')


class SGD(Rule):
    """Stochastic gradient descent with momentum.

        v <- mu v + rate g
        w <- w - v

    The rate is inside v: torch.optim.SGD keeps it outside, which differs as soon as the rate changes.
    Source: BVLC sgd_solver.cpp.
    """

    kernel: ClassVar[Kernel | None] = SgdKernel()

    def step(self, g: Tensor, rate: float, t: int, v: Tensor) -> Tensor:  # type: ignore[override]
        return v.mul_(self.param.momentum).add_(g, alpha=rate)


class Nesterov(Rule):
    """Nesterov's accelerated gradient: momentum with the gradient evaluated one step ahead.

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
    """AdaGrad: the rate of each weight decreases with the sum of its squared gradients.

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
    """RMSProp: divides the rate of each weight by a running root mean square of its gradient.

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
    """AdaDelta: scales the gradient by the ratio of the root mean squares of earlier steps and of earlier gradients.

        h <- mu h + (1 - mu) g^2
        u = g sqrt((s + delta) / (h + delta))
        s <- mu s + (1 - mu) u^2
        w <- w - rate u

    mu = momentum. The paper has no learning rate, which corresponds to base_lr 1.
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

    b1 = momentum, b2 = momentum2, t = iter + 1. delta is the paper's eps-hat, which differs from eps of
    torch.optim.Adam.
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
    """Return the rule of a solver type; raises a `SolverError` that suggests the nearest known name."""
    return RULES.find(type_name)


def rule_types() -> list[str]:
    """Return the names of all solver types, sorted."""
    return RULES.names()
