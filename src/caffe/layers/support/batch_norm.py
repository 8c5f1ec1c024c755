"""torch's kernel of batch normalization."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["batch_norm"]


def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    eps: float,
) -> Tensor:
    """Normalize x (N, C, ...). In training it overwrites `mean` and `variance` with those of the batch, over m - 1.

    Unlike torch.nn.functional.batch_norm it accepts one value per channel, as in the pooled map of one image.
    """
    return torch.batch_norm(x, weight, bias, mean, variance, training, 1.0, eps, torch.backends.cudnn.enabled)
