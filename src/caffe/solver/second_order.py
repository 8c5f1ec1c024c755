"""Second-order rules: L-BFGS for full batches, and BFGS and Newton's method for very small nets.

These rules use a line search, which evaluates the loss several times and compares the values. Every pass must therefore
see all the data, in the same order, and the net must not be stochastic. Other nets are rejected with an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from caffe import log, torch_internals
from caffe.layers.base import Effects, Source
from caffe.net import Net
from caffe.proto import caffe_pb2
from caffe.solver.rules import Rule, Update

__all__ = ["BFGS", "LBFGS", "Newton", "Search"]


class Search(Rule, abstract=True):
    """Base class: a search direction from an estimate of the curvature, followed by a line search.

        w <- w + t d, d = direction(g), with the strong Wolfe conditions for t (c1 = 1e-4, c2 = 0.9)

    w is the vector, in float64, of all blobs whose lr_mult is not 0. The loss includes the weight decay. `base_lr` is
    the first t tried. The line search is that of torch.optim.
    """

    history = 0
    parallel = False
    options: ClassVar[tuple[str, ...]] = ("max_evaluations",)
    limit = math.inf
    """The largest number of weights that the rule supports."""

    def check(self) -> None:
        param = self.param
        self.require(param.momentum == 0, f"cannot be used with momentum ({param.momentum:g}); remove it")
        self._line_search: Any = torch_internals.strong_wolfe()
        version = torch.__version__
        self.require(self._line_search is not None, f"torch {version} has no line search; install a supported version")
        self.require(param.clip_gradients < 0, "a line search needs whole gradients; remove clip_gradients")
        exact = param.precision == caffe_pb2.SolverParameter.FLOAT
        self.require(exact, "compares losses that differ in their last digits; remove precision")
        l1 = param.weight_decay != 0 and param.regularization_type == "L1"
        self.require(not l1, 'needs a smooth loss; use regularization_type "L2"')
        evaluations = param.max_evaluations
        self.require(evaluations > 0, f"max_evaluations is {evaluations}, expected a number above 0")
        self._known: tuple[Tensor, float, Tensor] | None = None  # end of the last search, loss and gradient there

    def bind(self, net: Net) -> None:
        self._net = net
        self._moving = [index for index, entry in enumerate(net.learnable) if entry.lr_mult]
        self.require(bool(self._moving), "the net has no weights to train")
        self._count = count = sum(net.learnable[index].tensor.numel() for index in self._moving)
        self.require(count <= self.limit, f"works for at most {self.limit:,} weights, the net has {count:,}; use LBFGS")
        odd = [entry for entry in net.learnable if entry.lr_mult not in (0, 1)]
        if odd:
            log.warning(
                "second_order.py",
                f'solver type "{type(self).__name__}": lr_mult {odd[0].lr_mult:g} of layer "{odd[0].layer}" counts as '
                "1: a line search moves all weights together, and only lr_mult 0 has a meaning for it",
            )

    # -- what a rule states ----------------------------------------------------------------------------------------

    def direction(self, x: Tensor, g: Tensor) -> Tensor:
        """Return a descent direction at the weights `x` with the gradient `g`."""
        raise NotImplementedError(type(self).__name__)

    def learn(self, s: Tensor, y: Tensor) -> None:
        """Update the curvature estimate: the step `s` changed the gradient by `y`."""

    def forget(self) -> bool:
        """Discard the curvature estimate. Returns False if there was none."""
        return False

    def require_shapes(self, memory: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> None:
        """Require that a memory has exactly these names and shapes."""
        found = {name: tuple(value.shape) for name, value in memory.items()}
        self.require(found == wanted, f"its memory has the shapes {found}, expected {dict(wanted)}")

    # -- one update ------------------------------------------------------------------------------------------------

    def apply(self, updates: Iterable[Update], t: int, scale: float) -> None:
        self._updates = list(updates)
        x = self._weights()
        try:
            self._advance(x)
        except BaseException:  # in one of the passes: the weights may be those of a trial step
            self._put(x)
            raise

    def _advance(self, x: Tensor) -> None:
        """Search from the weights `x` and set the weights to the result."""
        first = self._gradient()
        if self._known is None or not torch.equal(self._known[0], x):
            self._known = (x, *self.evaluate(x))
        _, f, g = self._known
        self._refuse_noise(first, g)
        d = self.direction(x, g)
        slope = float(g @ d)
        if not slope < 0:
            self.forget()
            d = -g
            slope = float(g @ d)
        found = self._search(x, d, f, g, slope) if slope < 0 else None
        if found is not None:
            self.learn(found[0] - x, found[2] - g)
            self._known = found
        elif not self.forget():
            log.info(
                "second_order.py", f"No step lowers the loss any more: |gradient| is {log.number(float(g.norm()))}"
            )
        self._finish(x, self._known[0])

    def _search(self, x: Tensor, d: Tensor, f: float, g: Tensor, slope: float) -> tuple[Tensor, float, Tensor] | None:
        """Return the weights where the line search ends, with their loss and gradient; None if it finds no lower loss.

        Near a minimum, the last digits of the loss are noise and the search fails. The first step tried is then
        accepted if the loss is equal up to these digits and the slope has decreased, as proposed by Hager & Zhang
        (2005).
        """

        def along(x: Tensor, t: float, d: Tensor) -> tuple[float, Tensor]:
            return self.evaluate(x + t * d)

        index = self._moving[0]
        rate = self._updates[index].rate / self._net.learnable[index].lr_mult
        first = rate if self.scaled else rate * min(1.0, 1 / float(g.abs().sum()))
        f_new, g_new, t, _ = self._line_search(along, x, first, d, f, g, slope, max_ls=self.param.max_evaluations)
        if not f_new < f:
            t = first
            f_new, g_new = along(x, first, d)
            if f_new - f > 1e-6 * abs(f) or not abs(float(g_new @ d)) < 0.9 * abs(slope):
                return None
        self._put(x + float(t) * d)
        return self._weights(), float(f_new), g_new

    @property
    def scaled(self) -> bool:
        """Whether the direction has a meaningful length, so that a step of 1 is tried first."""
        return True

    def evaluate(self, x: Tensor) -> tuple[float, Tensor]:
        """Compute loss and gradient at the weights `x`, including the weight decay."""
        self._put(x)
        self._net.clear_param_diffs()
        f = sum(self._net.forward_backward() for _ in range(self.param.iter_size)) / self.param.iter_size
        for index in self._moving:
            f += self._updates[index].decay / 2 * float(self._updates[index].data.double().square().sum())
        return (f if math.isfinite(f) else math.inf), self._gradient()

    def _weights(self) -> Tensor:
        return torch.cat([self._updates[index].data.double().flatten() for index in self._moving])

    def _gradient(self) -> Tensor:
        parts = []
        for index in self._moving:
            update, grad = self._updates[index], self._net.learnable[index].tensor.grad
            assert grad is not None
            parts.append((grad.double() / self.param.iter_size + update.decay * update.data.double()).flatten())
        return torch.cat(parts)

    def _put(self, x: Tensor) -> None:
        data = [self._updates[index].data for index in self._moving]
        for tensor, part in zip(data, x.split([tensor.numel() for tensor in data]), strict=True):
            tensor.copy_(part.view(tensor.shape))

    def _finish(self, old: Tensor, new: Tensor) -> None:
        """Set the weights to `new`, and the diffs to the amounts subtracted."""
        self._put(old - new)
        for index, entry in enumerate(self._net.learnable):
            if entry.tensor.grad is not None:
                entry.tensor.grad.copy_(entry.tensor.detach() if index in self._moving else torch.zeros(()))
        self._put(new)

    def _refuse_noise(self, first: Tensor, second: Tensor) -> None:
        """Raise a `SolverError` if two gradients computed at the same weights differ."""
        apart = float((first - second).norm() / second.norm().clamp(min=1e-300))
        if apart <= 1e-3:
            return
        layers = [layer for layer in self._net.layers if not isinstance(layer, Source)]
        random = [f'"{layer.name}" ({layer.type})' for layer in layers if layer.effects_now & Effects.RANDOM]
        sources = [f'"{layer.name}" ({layer.type})' for layer in self._net.layers if isinstance(layer, Source)]
        self.require(
            False,
            f"two passes at the same weights gave gradients that differ by {100 * apart:.2g} %: the net is stochastic. "
            f"Every pass must see all data, in a fixed order, and nothing random: see {', '.join(random + sources)}; "
            "batch_size times iter_size must be the size of the data set, without shuffling, crops and mirrors",
        )


class LBFGS(Search):
    """L-BFGS: estimates the inverse Hessian from the last `lbfgs_memory` steps s and gradient changes y.

        H0 = s'y / y'y of the last pair
        d = -H g by two loops over the pairs, r = 1 / y's:
            newest to oldest    a = r s'q;  q <- q - a y           (from q = g)
            oldest to newest    q <- q + (a - r y'q) s             (from q = H0 q)

    Source: Liu & Nocedal, 1989; Nocedal & Wright, algorithm 7.4; line search and tests as torch.optim.LBFGS.
    """

    options = ("max_evaluations", "lbfgs_memory")

    def check(self) -> None:
        super().check()
        size = self.param.lbfgs_memory
        self.require(size > 0, f"lbfgs_memory is {size}, expected a number above 0")
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def direction(self, x: Tensor, g: Tensor) -> Tensor:
        q, shares = -g, []
        for s, y in reversed(self.pairs):
            shares.append(float(s @ q) / float(y @ s))
            q = q - shares[-1] * y
        if self.pairs:
            s, y = self.pairs[-1]
            q = q * (float(s @ y) / float(y @ y))
        for (s, y), share in zip(self.pairs, reversed(shares), strict=True):
            q = q + (share - float(y @ q) / float(y @ s)) * s
        return q

    @property
    def scaled(self) -> bool:
        return bool(self.pairs)

    def learn(self, s: Tensor, y: Tensor) -> None:
        if float(y @ s) > 1e-10:
            self.pairs = [*self.pairs, (s, y)][-self.param.lbfgs_memory :]

    def forget(self) -> bool:
        had = bool(self.pairs)
        self.pairs = []
        return had

    def memory(self) -> dict[str, Tensor]:
        return {
            f"{name}{index}": x for index, pair in enumerate(self.pairs) for name, x in zip("sy", pair, strict=True)
        }

    def check_memory(self, memory: Mapping[str, Tensor]) -> None:
        count = len(memory) // 2
        wanted = {f"{name}{index}": (self._count,) for index in range(count) for name in "sy"}
        self.require_shapes(memory, wanted)
        for index in range(count):
            curved = float(memory[f"y{index}"].double() @ memory[f"s{index}"].double())
            self.require(0 < curved < math.inf, f"pair {index} of its memory has y's = {curved:g}, expected above 0")

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        self._known = None
        doubles = {name: value.double() for name, value in memory.items()}
        self.pairs = [(doubles[f"s{index}"], doubles[f"y{index}"]) for index in range(len(memory) // 2)]


class BFGS(Search):
    """BFGS: stores the estimate H of the inverse Hessian as a full matrix and updates it after each step.

        d = -H g
        H <- (I - r s y') H (I - r y s') + r s s', r = 1 / y's; before the first correction H = s'y / y'y I

    s is the step, y the change of the gradient. For teaching: H has one row and column per weight, so at most 2,000
    weights are supported.
    Source: Nocedal & Wright, algorithm 6.1 and equation 6.20.
    """

    limit = 2000

    def check(self) -> None:
        super().check()
        self.inverse: Tensor | None = None

    def direction(self, x: Tensor, g: Tensor) -> Tensor:
        return -g if self.inverse is None else -(self.inverse @ g)

    @property
    def scaled(self) -> bool:
        return self.inverse is not None

    def learn(self, s: Tensor, y: Tensor) -> None:
        ys = float(y @ s)
        if ys <= 1e-10:
            return
        eye = torch.eye(len(s), dtype=s.dtype, device=s.device)
        h = eye * (ys / float(y @ y)) if self.inverse is None else self.inverse
        left = eye - torch.outer(s, y) / ys
        self.inverse = left @ h @ left.T + torch.outer(s, s) / ys

    def forget(self) -> bool:
        had = self.inverse is not None
        self.inverse = None
        return had

    def memory(self) -> dict[str, Tensor]:
        return {} if self.inverse is None else {"inverse": self.inverse}

    def check_memory(self, memory: Mapping[str, Tensor]) -> None:
        self.require_shapes(memory, {"inverse": (self._count, self._count)} if memory else {})

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        self._known = None
        self.inverse = memory["inverse"].double() if memory else None


class Newton(Search):
    """Newton's method, with the Hessian h from differences of the gradient along each axis.

        h_i = (g(w + e_i step) - g(w - e_i step)) / (2 step)
        d = -V (V'g / max(|l|, 1e-6 max |l|)), with V and l the eigenvectors and eigenvalues of h

    Using |l| instead of l makes directions of negative curvature, which lead to saddle points, descent directions. For
    teaching: an update needs two passes per weight, so at most 500 weights are supported.
    Source: Nocedal & Wright, sections 3.4 and 8.1.
    """

    limit = 500

    def direction(self, x: Tensor, g: Tensor) -> Tensor:
        width = torch.finfo(self._updates[self._moving[0]].data.dtype).eps ** (1 / 3)
        rows = []
        for index in range(len(x)):
            shift = torch.zeros_like(x)
            shift[index] = width * max(1.0, abs(float(x[index])))
            ahead, behind = self.evaluate(x + shift)[1], self.evaluate(x - shift)[1]
            rows.append((ahead - behind) / (2 * shift[index]))
        h = torch.stack(rows)
        values, vectors = torch.linalg.eigh((h + h.T) / 2)
        sizes = values.abs()
        return -(vectors @ (vectors.T @ g / sizes.clamp(min=1e-6 * float(sizes.max()) + 1e-300)))
