"""Rewrites of a net's list of calls, made before it first runs as one piece.

A rewrite is a function from calls to calls that changes how values are computed and never which: a test holds each
equal to the net layer by layer. `REWRITES` lists them in the order of their use.
"""

from __future__ import annotations

from collections.abc import Sequence

from caffe.net.rewrite.batch_norm import scale_with_batch_norm
from caffe.net.rewrite.call import Call, Rewrite
from caffe.net.rewrite.relu import relu_in_place
from caffe.net.rewrite.siblings import sibling_convolutions

__all__ = ["REWRITES", "Call", "rewrite"]

REWRITES: list[Rewrite] = [scale_with_batch_norm, sibling_convolutions, relu_in_place]


def rewrite(calls: Sequence[Call], wanted: frozenset[int]) -> list[Call]:
    """The calls after all rewrites. Values at the places `wanted` must be there at the end."""
    for change in REWRITES:
        calls = change(calls, wanted)
    return list(calls)
