"""Rewrite of convolutions that skip cells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from caffe.layers.convolution import is_convolution
from caffe.net.plan.rewrite.call import Call
from caffe.net.plan.rewrite.product import FusedProduct

__all__ = ["skip_early"]


def skip_early(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """Do not compute cells that all readers, 1 x 1 convolutions with a stride, skip.

    In Caffe's residual nets, stages begin with such convolutions. The 3 x 3 convolution before them then computes only
    a quarter of its cells.
    """
    changed = list(calls)
    readers: dict[int, list[tuple[int, int]]] = defaultdict(list)  # by place: (call, index of the bottom)
    for index, call in enumerate(calls):
        for position, (place, _) in enumerate(call.reads):
            readers[place].append((index, position))
    for index in reversed(range(len(changed))):
        call = changed[index]
        if not _convolves(call) or call.writes[0] in wanted:
            continue
        found = readers[call.writes[0]]
        strides = {_skips(changed[reader]) if position == 0 else () for reader, position in found}
        if len(strides) == 1 and (stride := strides.pop()):
            changed[index] = replace(call, run=_thinned(call.run, stride))
            for reader, _ in found:
                each: Any = changed[reader]
                whole = replace(each.run.slide, stride=(1,) * len(stride))
                changed[reader] = replace(each, run=replace(each.run, slide=whole))
    return changed


def _convolves(call: Call) -> bool:
    return isinstance(call.run, FusedProduct) and is_convolution(call.run.layer)


def _skips(call: Call) -> tuple[int, ...]:
    """The stride of a 1 x 1 convolution. Empty for other convolutions and for stride 1."""
    slide: Any = call.run.slide if _convolves(call) and isinstance(call.run, FusedProduct) else None
    alone = slide is not None and set(slide.kernel) == {1} and not any(slide.pad)
    return slide.stride if alone and any(step > 1 for step in slide.stride) else ()


def _thinned(product: Any, stride: tuple[int, ...]) -> FusedProduct:
    """The product that computes only every `stride`-th cell."""
    steps = tuple(old * new for old, new in zip(product.slide.stride, stride, strict=True))
    slide = replace(product.slide, stride=steps)
    return replace(product, slide=slide, every=stride if product.adds else ())
