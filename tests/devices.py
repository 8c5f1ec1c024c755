"""Simulates a device that the machine does not have."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA, META = 1, 14  # c10::DeviceType


class OneDevice(TorchDispatchMode):
    """Raise an error if an operator mixes tensors of the device (here "meta") with a CPU tensor that is not a scalar.

    A torch build without CUDA aborts in autograd of fake CUDA tensors; meta tensors go through the same code.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket not in (torch.ops.aten.copy_, torch.ops.aten._to_copy):
            leaves = tree_leaves((args, kwargs))
            devices = {x.device.type for x in leaves if isinstance(x, Tensor) and x.dim()}
            assert len(devices) < 2, f"{func} mixes devices: a constant was made on the CPU"
        return func(*args, **(kwargs or {}))


@contextmanager
def fake_cuda() -> Iterator[None]:
    """FakeTensorMode, in which tensors can be on "cuda". A build without CUDA then has no gradients.

    Such a build has no guard for the device, which indexing and copies ask for: that of meta tensors, which does
    nothing, stands in. The engine of autograd would also want CUDA's queues.
    """
    if torch.backends.cuda.is_built():
        with FakeTensorMode():
            yield
        return
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * (META + 1)).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    guards[CUDA] = guards[META]
    try:
        with FakeTensorMode(), torch.no_grad():
            yield
    finally:
        guards[CUDA] = None
