"""Catches tensors of two devices in one operator, without a second device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class OneDevice(TorchDispatchMode):
    """Fails an operator that mixes tensors of the device (here "meta") with one of the CPU, single numbers aside.

    A torch build without CUDA aborts in autograd of fake CUDA tensors; meta tensors go through the same code.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket not in (torch.ops.aten.copy_, torch.ops.aten._to_copy):
            leaves = tree_leaves((args, kwargs))
            devices = {x.device.type for x in leaves if isinstance(x, Tensor) and x.dim()}
            assert len(devices) < 2, f"{func} mixes devices: a constant was made on the CPU"
        return func(*args, **(kwargs or {}))
