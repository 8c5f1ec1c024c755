"""What a layer's run costs: the products it must form and the bytes it must move, and how fast this machine can be."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from caffe import torch_internals
from caffe.blob import Blob
from caffe.net.graph.step import Step

__all__ = ["Cost", "cost", "matrix_peak", "products"]


@dataclass(frozen=True)
class Cost:
    """Floating-point operations of a layer's matrix products, a multiply-add being two, and bytes, for one batch.

    `moved` is what forward has to read and write: bottoms, tops and learned blobs; nothing where every top is a view of
    a bottom.
    """

    flops: int
    backward_flops: int
    moved: int


def cost(step: Step) -> Cost:
    """What a layer costs that has run forward.

    The products are those of its `forward` on meta tensors, so there is no second rule per layer. Backward forms each
    once more for the gradient of the learned blobs and once more for that of the bottoms, where they are wanted.
    """
    flops = products(step)
    wanted = any(step.needs) + bool(step.params) if step.backward else 0
    return Cost(flops, flops * wanted, _moved(step))


def products(step: Step) -> int:
    """Floating-point operations of the matrix products that a layer's `forward` forms, on meta tensors."""
    bottoms = [torch.empty(blob.shape, device="meta") for blob in step.bottoms]
    with FlopCounterMode(display=False, custom_mapping=_more_products()) as counter:
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
    """Operators of matrix products that torch's counter does not know."""
    operator = torch_internals.linear_operator
    return {} if operator is None else {operator: _linear_flops}


def _linear_flops(x: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * x.numel() * weight[0]


def matrix_peak(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second of a large matrix product, by the fastest way that torch has on the device.

    Takes a few tenths of a second, and the best of several runs by each way.
    """
    size = 4096 if torch.device(device).type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / min(map(_best_seconds, _products(a, b)))


def _products(a: Tensor, b: Tensor) -> list[Callable[[], Tensor]]:
    """Ways to multiply two square matrices: the library of torch.mm, and that of convolutions and linear layers."""
    ways = [lambda: torch.mm(a, b)]
    if a.is_cuda:  # cuDNN may use TensorFloat-32 where torch.mm may not
        ways.append(lambda: torch.conv2d(a[:, :, None, None], b[:, :, None, None]))
    elif a.device.type == "cpu" and torch_internals.onednn_takes(a.dtype):
        ways.append(lambda: torch_internals.linear_pointwise(a, b, None, "none", [], ""))
    return ways


def _best_seconds(product: Callable[[], Tensor], budget: float = 0.15) -> float:
    """The shortest of as many runs as fit into `budget` seconds, two at least, after one that does not count."""
    product()
    best, end = float("inf"), time.perf_counter() + budget
    runs = 0
    while runs < 2 or time.perf_counter() < end:
        _wait()
        start = time.perf_counter()
        product()
        _wait()
        best, runs = min(best, time.perf_counter() - start), runs + 1
    return best


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
