"""Rewrites of a net's list of calls, which are applied before the first run of the whole net.

A rewrite is a function from calls to calls. It changes how values are computed but not the values: a test compares each
rewrite with the net run layer by layer. `REWRITES` lists them in the order in which they are applied.
"""

from __future__ import annotations

from collections.abc import Sequence

from caffe.net.plan.rewrite.batch_norm import scale_with_batch_norm
from caffe.net.plan.rewrite.call import Call, Rewrite
from caffe.net.plan.rewrite.dead import drop_dead, forget_history, free_early
from caffe.net.plan.rewrite.dropout import drop_dropout
from caffe.net.plan.rewrite.fuse import add_in_place, fold_scales, fuse_relu, fuse_sum, use_products
from caffe.net.plan.rewrite.inplace import apart, in_place, overwritten, relu_in_place, sum_in_place
from caffe.net.plan.rewrite.pooling import pool_before_relu
from caffe.net.plan.rewrite.recompute import clip_again, normalize_again
from caffe.net.plan.rewrite.siblings import sibling_convolutions
from caffe.net.plan.rewrite.strides import skip_early

__all__ = ["FROZEN", "INFERENCE", "REWRITES", "Call", "Rewrite", "apart", "in_place", "overwritten", "rewrite"]

REWRITES: list[Rewrite] = [
    scale_with_batch_norm,
    sibling_convolutions,
    pool_before_relu,
    normalize_again,
    clip_again,
    sum_in_place,
    relu_in_place,
    free_early,
]

INFERENCE: list[Rewrite] = [
    forget_history,
    drop_dropout,
    drop_dead,
    use_products,
    fold_scales,
    fuse_sum,
    fuse_relu,
    skip_early,
    add_in_place,
    scale_with_batch_norm,
    relu_in_place,
]
"""The rewrites for inference, where few values are needed."""


FROZEN: list[Rewrite] = [forget_history, drop_dropout, drop_dead, scale_with_batch_norm]
"""The rewrites for compiled inference. The compiler itself folds and fuses layers."""


def rewrite(calls: Sequence[Call], wanted: frozenset[int], changes: Sequence[Rewrite] = REWRITES) -> list[Call]:
    """Apply all rewrites. Values at the places `wanted` must be available at the end of a run."""
    for change in changes:
        calls = change(calls, wanted)
    return list(calls)
