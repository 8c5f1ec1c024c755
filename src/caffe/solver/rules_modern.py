"""Update rules that Caffe does not have.

Each is a rule as in `rules`. If torch.optim implements the published arithmetic, its functional form is called.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.optim.nadam import nadam

from caffe.solver.kernels import AdamWKernel
from caffe.solver.rules import Rule, Update
from caffe.solver.update import length

__all__ = ["LAMB", "LARS", "AdamW", "Lion", "Muon", "NAdam"]


class AdamW(Rule):
    """Adam with decoupled weight decay: the decay is applied to the weights instead of added to the gradient.

        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) g^2
        w <- w - rate (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + delta) + decay w)

    b1 = momentum, b2 = momentum2, t = iter + 1. Unlike in the rule Adam here, delta is added after the bias correction.
    Source: Loshchilov & Hutter, arXiv:1711.05101, algorithm 2.
    """

    history = 2
    decoupled = True
    kernel = AdamWKernel()

    def check(self) -> None:
        self.between("momentum", "momentum2")
        l1 = self.param.weight_decay != 0 and self.param.regularization_type == "L1"
        self.require(not l1, 'its weight decay is that of regularization_type "L2"; remove "L1"')

    def step(self, g: Tensor, rate: float, t: int, m: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
        b1, b2 = self.param.momentum, self.param.momentum2
        m.mul_(b1).add_(g, alpha=1 - b1)
        v.mul_(b2).addcmul_(g, g, value=1 - b2)
        scaled = v.div(1 - b2**t).sqrt_().add_(self.param.delta)
        return m.div(scaled).mul_(rate / (1 - b1**t))


class NAdam(Rule):
    """Adam with Nesterov's momentum: the step uses the momentum coefficient of the next iteration.

        mu_t = b1 (1 - 0.96^(t psi) / 2)
        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) g^2
        n = (1 - mu_t) g / (1 - mu_1 ... mu_t) + mu_(t+1) m / (1 - mu_1 ... mu_(t+1))
        w <- w - rate n / (sqrt(v / (1 - b2^t)) + delta)

    b1 = momentum, b2 = momentum2, psi = momentum_decay, t = iter + 1.
    Source: Dozat, ICLR workshop 2016; computed by torch.optim.
    """

    history = 2
    options = ("momentum_decay",)

    def check(self) -> None:
        self.between("momentum", "momentum2")
        decay = self.param.momentum_decay
        self.require(decay >= 0, f"momentum_decay is {decay:g}, expected 0 or more")
        self._known: tuple[int, float, float] = (1, self.param.momentum, 1.0)

    def update(self, part: Update, t: int) -> None:
        self.penalize(part, part.decay)
        w, (m, v) = part.data, part.history
        before = w.clone()
        nadam(
            [w],
            [part.diff],
            [m],
            [v],
            [torch.tensor(self._product(t), dtype=torch.float64)],
            [torch.tensor(t - 1.0)],
            foreach=False,
            beta1=self.param.momentum,
            beta2=self.param.momentum2,
            lr=part.rate,
            weight_decay=0,
            momentum_decay=self.param.momentum_decay,
            eps=self.param.delta,
        )
        torch.sub(before, w, out=part.diff)

    def _product(self, t: int) -> float:
        """Return mu_1 ... mu_(t-1). It is computed once per iteration and cached."""
        b1 = self.param.momentum
        if self._known[:2] != (t, b1):
            factors = b1 * (1 - 0.5 * 0.96 ** (self.param.momentum_decay * np.arange(1, t)))
            self._known = (t, b1, float(np.prod(factors)))
        return self._known[2]


class Lion(Rule):
    """Lion: the step is the sign of an interpolated momentum, so all weights change by the same amount.

        u = sign(b1 m + (1 - b1) g)
        m <- b2 m + (1 - b2) g
        w <- w - rate (u + decay w)

    b1 = momentum, b2 = momentum2. The paper uses 0.9 and 0.99, a tenth of Adam's rate and ten times its decay.
    Source: Chen et al., arXiv:2302.06675, algorithm 2.
    """

    decoupled = True

    def check(self) -> None:
        self.between("momentum", "momentum2")

    def step(self, g: Tensor, rate: float, t: int, m: Tensor) -> Tensor:  # type: ignore[override]
        b1, b2 = self.param.momentum, self.param.momentum2
        u = m.mul(b1).add_(g, alpha=1 - b1).sign_().mul_(rate)
        m.mul_(b2).add_(g, alpha=1 - b2)
        return u


class Muon(Rule):
    """Muon: orthogonalizes the momentum of each weight matrix. Biases and other vectors are updated by AdamW.

        m <- mu m + (1 - mu) g
        O = orthogonal((1 - mu) g + mu m), all singular values near 1
        w <- w - rate (0.2 sqrt(max(rows, columns)) O + decay w)

    mu = momentum; rows = w.shape[0], columns = product of the other axes. The factor gives steps of the size of
    AdamW's, so the same base_lr and decay fit both.
    Source: Jordan et al., kellerjordan.github.io/posts/muon; the factor: Liu et al., arXiv:2502.16982.
    """

    history = 2
    whole = True
    decoupled = True
    options = ("newton_schulz_steps",)

    def check(self) -> None:
        self.between("momentum", "momentum2")
        self._vectors = AdamW(self.param)
        steps = self.param.newton_schulz_steps
        self.require(steps > 0, f"newton_schulz_steps is {steps}, expected a number above 0")

    def update(self, part: Update, t: int) -> None:
        if part.data.dim() < 2:
            self._vectors.update(part, t)
        else:
            super().update(part, t)

    def step(self, g: Tensor, rate: float, t: int, m: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
        mu = self.param.momentum
        m.mul_(mu).add_(g, alpha=1 - mu)
        ahead = g.mul(1 - mu).add_(m, alpha=mu).flatten(1)
        o = orthogonal(ahead, self.param.newton_schulz_steps)
        return o.mul_(0.2 * max(o.shape) ** 0.5 * rate).reshape(g.shape)


class LARS(Rule):
    """LARS: momentum with a rate scaled for each blob by |w| / |g|, for large batches.

        r = trust_coefficient |w| / (|g| + decay |w|), or 1 where |w| or |g| is 0
        v <- mu v + rate r (g + decay w)
        w <- w - v

    Source: You et al., arXiv:1708.03888, algorithm 1.
    """

    whole = True
    norms = True
    options = ("trust_coefficient",)

    def check(self) -> None:
        trust = self.param.trust_coefficient
        self.require(trust > 0, f"trust_coefficient is {trust:g}, expected a number above 0")

    def update(self, part: Update, t: int) -> None:
        w, g, (v,) = part.data, part.diff, part.history
        weights, gradient = part.norm(w), part.norm(g)
        both = weights > 0 and gradient > 0
        ratio = self.param.trust_coefficient * weights / (gradient + part.decay * weights) if both else 1.0
        self.penalize(part, part.decay)
        g.copy_(v.mul_(self.param.momentum).add_(g, alpha=part.rate * ratio))
        w.sub_(g)


class LAMB(Rule):
    """LAMB: Adam with each blob's step scaled to the norm of its weights, for large batches.

        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) g^2
        u = m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + delta) + decay w
        w <- w - rate |w| / |u| u, or rate u where |w| or |u| is 0

    b1 = momentum, b2 = momentum2, t = iter + 1.
    Source: You et al., arXiv:1904.00962, algorithm 2.
    """

    history = 2
    whole = True
    norms = True

    def check(self) -> None:
        self.between("momentum", "momentum2")

    def update(self, part: Update, t: int) -> None:
        w, g, (m, v) = part.data, part.diff, part.history
        b1, b2 = self.param.momentum, self.param.momentum2
        m.mul_(b1).add_(g, alpha=1 - b1)
        v.mul_(b2).addcmul_(g, g, value=1 - b2)
        g.copy_(m.div(1 - b1**t).div_(v.div(1 - b2**t).sqrt_().add_(self.param.delta)))
        self.penalize(part, part.decay)
        weights, step = part.norm(w), part.norm(g)
        w.sub_(g.mul_(part.rate * (weights / step if weights > 0 and step > 0 else 1.0)))


def orthogonal(matrix: Tensor, steps: int) -> Tensor:
    """Bring the singular values of a matrix near 1, by `steps` steps of the Newton-Schulz iteration of order 5.

    The coefficients are Jordan's. They are fast but inexact: the singular values end between 0.7 and 1.2.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if tall else matrix
    x = x / (length(x) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if tall else x
