"""The cost of a layer's run in operations and bytes, and the peak speed of the machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from caffe import torch_internals
from caffe.blob import Blob
from caffe.net.graph.step import Step

__all__ = ["Cost", "cost", "matrix_peak", "products", "wait"]


@dataclass(frozen=True)
class Cost:
    """Floating-point operations of a layer's matrix products (a multiply-add counts as two) and bytes, for one batch.

    `moved` are the bytes that forward reads and writes: bottoms, tops and learned blobs; 0 if every top is a view of a
    bottom.
    """

    flops: int
    backward_flops: int
    moved: int


def cost(step: Step) -> Cost:
    """The cost of a layer that has run forward.

    The operations are counted in a run of `forward` on meta tensors. Backward needs the same number for the gradient of
    the learned blobs and again for that of the bottoms, if these gradients are needed.
    """
    flops = products(step)
    wanted = any(step.needs) + bool(step.params) if step.backward else 0
    return Cost(flops, flops * wanted, _moved(step))


def products(step: Step) -> int:
    """Floating-point operations of the matrix products that a layer's `forward` forms, on meta tensors."""
    bottoms = [torch.empty(blob.shape, device="meta") for blob in step.bottoms]
    counter = FlopCounterMode(display=False, custom_mapping=_more_products())
    with counter, suppress(ZeroDivisionError):  # torch's rule for batch_norm, which has no products, divides by m - 1
        step.layer.dry_run(*bottoms)
    return int(counter.get_total_flops())


def _moved(step: Step) -> int:
    bottoms = {id(blob): blob for blob in step.bottoms}
    memory = {_address(blob) for blob in step.bottoms}
    made = [blob for blob in step.tops if id(blob) in bottoms or _address(blob) not in memory]
    if not made:
        return 0
    return sum(x.nbytes for x in (*(blob.read() for blob in (*step.bottoms, *made)), *step.layer.tensors))


def _address(blob: Blob) -> int:
    return blob.read().untyped_storage().data_ptr()


def _more_products() -> dict[Any, Callable[..., int]]:
    """Matrix product operators that torch's FLOP counter does not support."""
    operator = torch_internals.linear_operator
    return {} if operator is None else {operator: _linear_flops}


def _linear_flops(x: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * x.numel() * weight[0]


def matrix_peak(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations per second of a large matrix product, with the fastest method of torch on the device.

    Takes a few tenths of a second. The result is the best of several runs of each method.
    """
    size = 4096 if torch.device(device).type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / min(map(_best_seconds, _products(a, b)))


def _products(a: Tensor, b: Tensor) -> list[Callable[[], Tensor]]:
    """Ways to multiply two square matrices: the library of torch.mm, and that of convolutions and linear layers."""
    ways = [lambda: torch.mm(a, b)]
    if a.is_cuda:  # cuDNN may use TensorFloat-32 while torch.mm may not
        ways.append(lambda: torch.conv2d(a[:, :, None, None], b[:, :, None, None]))
    elif a.device.type == "cpu" and torch_internals.onednn_takes(a.dtype):
        ways.append(lambda: torch_internals.linear_pointwise(a, b, None, "none", [], ""))
    return ways


def _best_seconds(product: Callable[[], Tensor], budget: float = 0.15) -> float:
    """The shortest run, of as many runs as fit in `budget` seconds (at least two), after a warm-up run."""
    product()
    best, end = float("inf"), time.perf_counter() + budget
    runs = 0
    while runs < 2 or time.perf_counter() < end:
        wait()
        start = time.perf_counter()
        product()
        wait()
        best, runs = min(best, time.perf_counter() - start), runs + 1
    return best


def wait() -> None:
    """Wait for the work of a GPU that runs already, so that its time can be measured."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
