"""torch's fused kernels for some update rules. Each makes one pass over memory.

A rule defines its arithmetic in `step` and names its kernel here. If the kernel cannot be used (because of the dtype,
layout or device, or because this torch does not have it), the rule's `step` runs instead.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from caffe import torch_internals
from caffe.solver.update import Update, alike, flat

__all__ = ["AdamKernel", "AdamWKernel", "Kernel", "NesterovKernel", "SgdKernel"]


class Kernel(ABC):
    """Base class of the kernels. Subclasses are final."""

    groups: ClassVar[bool] = False
    """Whether `take` updates several whole tensors with the same rate and decay in one call."""

    def take(self, updates: Iterable[Update], param: Any, scale: float) -> list[Update]:
        """Apply the updates that the kernel supports, with gradients multiplied by `scale`; returns the remaining
        ones.
        """
        return list(updates)

    @abstractmethod
    def run(self, part: Update, param: Any, t: int) -> bool:
        """Update one tensor or piece. Returns False, without any change, if the kernel does not support it."""


class SgdKernel(Kernel):
    """`_fused_sgd_` for SGD with momentum. Updates many tensors in one call."""

    groups = True

    def take(self, updates: Iterable[Update], param: Any, scale: float) -> list[Update]:
        fitting: dict[tuple[float, float], list[Update]] = {}
        others = []
        l1 = param.regularization_type == "L1"
        usable = torch_internals.fused_sgd is not None and param.momentum != 0
        for update in updates:
            if usable and _fits_sgd(update, scale, l1):
                fitting.setdefault((update.rate, update.decay), []).append(update)
            else:
                others.append(update)
        for group in fitting.values():
            _sgd(group, param.momentum, scale, nesterov=False)
            for update in group:
                update.subtracted(update.history[0])
        return others

    def run(self, part: Update, param: Any, t: int) -> bool:
        return False


class NesterovKernel(Kernel):
    """`_fused_sgd_` with nesterov: w <- w - (rate g + mu v'). This equals the step of the rule."""

    def run(self, part: Update, param: Any, t: int) -> bool:
        usable = torch_internals.fused_sgd is not None and param.momentum != 0
        if not usable or not _fits_sgd(part, 1.0, param.regularization_type == "L1"):
            return False
        before = part.data.clone()
        _sgd([part], param.momentum, 1.0, nesterov=True)
        torch.sub(before, part.data, out=part.diff)
        return True


class AdamKernel(Kernel):
    """`_fused_adam_`, called with eps = delta / sqrt(1 - b2^t)."""

    def run(self, part: Update, param: Any, t: int) -> bool:
        l1 = part.decay != 0 and param.regularization_type == "L1"
        eps = param.delta / math.sqrt(1 - param.momentum2**t)
        return not l1 and _adam(torch_internals.fused_adam, part, param, t, eps)


class AdamWKernel(Kernel):
    """`_fused_adamw_`."""

    def run(self, part: Update, param: Any, t: int) -> bool:
        return _adam(torch_internals.fused_adamw, part, param, t, param.delta)


def _sgd(group: Sequence[Update], momentum: float, scale: float, nesterov: bool) -> None:
    """Call torch's kernel for updates with the same rate and decay: v <- mu v + rate (scale g + decay w), w <- w - v.

    The kernel multiplies the gradient in v by 1 - dampening, so the rate is passed as 1 - dampening. Nesterov's step
    also uses the gradient without this factor; there the gradient itself is scaled, which writes it once more.
    """
    rate, decay = group[0].rate, group[0].decay
    data, diffs, velocities = zip(*map(_contiguous, group), strict=True)
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


def _contiguous(update: Update) -> list[Tensor]:
    """Data, gradient and history, which have the same strides, as contiguous tensors over the same memory."""
    return list(update.tensors) if update.data.is_contiguous() else [flat(tensor) for tensor in update.tensors]


def _fits_sgd(update: Update, scale: float, l1: bool) -> bool:
    """Whether the kernel supports this update. rate * scale must not vanish when `1 - dampening` is rounded."""
    w = update.data
    plain = abs(update.rate * scale) > 1e-8 and not (l1 and update.decay)
    return plain and w.dtype is torch.float32 and w.device.type in ("cpu", "cuda") and alike(update.tensors)


def _adam(kernel: Callable[..., None] | None, part: Update, param: Any, t: int, eps: float) -> bool:
    """Update by torch's `_fused_adam_` or `_fused_adamw_`.

    Returns False, without any change, if they cannot be used.
    """
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
