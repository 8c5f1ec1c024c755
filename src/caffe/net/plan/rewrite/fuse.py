"""Rewrites for inference that fuse a layer with weights and the layers after it into one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from caffe.layers.activation import ReLU
from caffe.layers.dense import InnerProduct
from caffe.layers.normalization import BatchNorm
from caffe.net.plan.rewrite.batch_norm import scales_channels
from caffe.net.plan.rewrite.call import Call, readers
from caffe.net.plan.rewrite.inplace import adds_two
from caffe.net.plan.rewrite.product import FusedProduct, is_plain

__all__ = ["add_in_place", "fold_scales", "fuse_relu", "fuse_sum", "use_products"]


def use_products(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """Replace Convolution, Deconvolution and InnerProduct by kernels whose weights are reordered once."""
    return [replace(call, run=FusedProduct(call.layer)) if is_plain(call) else call for call in calls]


def fold_scales(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """Fold BatchNorm with running statistics and channel-wise Scale into the weights and bias of the previous layer."""
    return _absorb(calls, wanted, _fold)


def _fold(product: FusedProduct, call: Call) -> FusedProduct | None:
    layer: Any = call.layer
    on_channels = type(product.layer) is not InnerProduct or product.layer.start == 1
    norm = isinstance(layer, BatchNorm) and layer.uses_running
    if not on_channels or not (norm or scales_channels(call)):
        return None
    return replace(product, scales=(*product.scales, layer))


def fuse_relu(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """Fuse ReLU, leaky or not, into the kernel that computes its bottom."""
    return _absorb(calls, wanted, _fuse_relu)


def _fuse_relu(product: FusedProduct, call: Call) -> FusedProduct | None:
    if type(call.layer) is not ReLU or product.slope is not None:
        return None
    return replace(product, slope=call.layer.opt.negative_slope)


def fuse_sum(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """Fuse an Eltwise SUM of two bottoms, as in a residual net, into the kernel whose top only the sum reads."""
    read = readers(calls)
    makers: dict[int, Call] = {}
    gone: set[int] = set()
    changed = []
    for call in calls:
        if adds_two(call):
            for mine, other in (call.reads[::-1], call.reads):
                maker = makers.get(mine[0])
                run = maker.run if maker is not None and read[mine[0]] == 1 and mine[0] not in wanted else None
                if maker is not None and isinstance(run, FusedProduct) and not run.adds:
                    gone.add(id(maker))
                    call = replace(call, layer=maker.layer, run=replace(run, adds=True), reads=(*maker.reads, other))
                    break
        makers.update(dict.fromkeys(call.writes, call))
        changed.append(call)
    return [call for call in changed if id(call) not in gone]


def add_in_place(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """Compute fused sums in place of their second bottom, if a kernel computed it and only earlier kernels read it."""
    fresh: set[int] = set()
    last: dict[int, int] = {}
    for index, call in enumerate(calls):
        last.update((place, index) for place, _ in call.reads)
        if isinstance(call.run, FusedProduct):
            fresh.update(call.writes)
        else:  # its top may be a view of its bottom
            fresh.difference_update(place for place, _ in call.reads)
    changed = []
    for index, call in enumerate(calls):
        if isinstance(call.run, FusedProduct) and call.run.adds:
            place = call.reads[1][0]
            if place in fresh and place not in wanted and last[place] == index and place != call.reads[0][0]:
                call = replace(call, run=replace(call.run, over=True))
        changed.append(call)
    return changed


def _absorb(calls: Sequence[Call], wanted: frozenset[int], join: Any) -> list[Call]:
    """Fuse a kernel with the only reader of its top, if `join(product, call)` returns a kernel for both."""
    read = readers(calls)
    place: dict[int, int] = {}  # for a value, the index in `changed` of the call that computes it
    changed: list[Call] = []
    for call in calls:
        source = call.reads[0][0] if len(call.reads) == 1 else -1
        if source in place and read[source] == 1 and source not in wanted:
            index = place[source]
            maker: Any = changed[index]
            joined = join(maker.run, call)
            if joined is not None:
                changed[index] = replace(maker, run=joined, writes=call.writes, kept=call.kept)
                place[call.writes[0]] = index
                continue
        if isinstance(call.run, FusedProduct):
            place[call.writes[0]] = len(changed)
        changed.append(call)
    return changed
