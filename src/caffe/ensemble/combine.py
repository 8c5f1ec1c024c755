"""Combines the outputs of several classifiers. The last axis of the arrays is the class axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from caffe.errors import ArgumentError, did_you_mean

__all__ = ["METHODS", "check_method", "combine", "fit_weights", "normalized", "softmax", "votes"]

METHODS = ("probabilities", "logits", "votes", "weights")
"""The mean of the probabilities, the mean of the logits, the shares of votes, or a weighted mean of the
probabilities.
"""


def check_method(method: str) -> None:
    """Raise an ArgumentError for an unknown method."""
    if method not in METHODS:
        hint = did_you_mean(method, METHODS)
        raise ArgumentError(f'combine is "{method}", expected one of {", ".join(METHODS)}{hint}')


def combine(members: Sequence[np.ndarray], method: str, weights: Sequence[float] | None = None) -> np.ndarray:
    """Return the probabilities of the ensemble, given the probabilities (..., classes) of each member.

        probabilities   p = sum p_i / n
        logits          p = softmax(sum log p_i / n), the geometric mean
        votes           p = the share of the members whose most probable class it is
        weights         p = sum w_i p_i, with sum w_i = 1

    The mean of the logits and the mean of log p_i differ by a constant per item, which softmax cancels.
    """
    check_method(method)
    stack = np.stack([np.asarray(member, np.float64) for member in members])
    if method == "logits":
        return softmax(np.log(np.maximum(stack, 1e-300)).mean(0))
    if method == "votes":
        return votes(stack)
    if method == "weights":
        if weights is None or len(weights) != len(members):
            given = "none" if weights is None else len(weights)
            raise ArgumentError(f"combine by weights needs a weight for each of {len(members)} members; it has {given}")
        return np.tensordot(normalized(weights), stack, 1)
    mean: np.ndarray = stack.mean(0)
    return mean


def votes(stack: np.ndarray) -> np.ndarray:
    """Return the shares of votes (..., classes) of members (n, ..., classes).

    Classes with equal numbers of votes are ordered by their mean probability, which is added with a factor smaller than
    a vote.
    """
    best = stack.argmax(-1)
    shares = (best[..., None] == np.arange(stack.shape[-1])).mean(0)
    small = 1e-6
    result: np.ndarray = (1 - small) * shares + small * stack.mean(0)
    return result


def fit_weights(members: Sequence[np.ndarray], labels: np.ndarray, rounds: int = 500) -> np.ndarray:
    """Fit the weights (n,) of a mixture of the members, minimizing the negative log likelihood of these labels.

    `members` are probabilities (items, classes), `labels` integers (items,). The loss is convex in the weights. Each
    step of expectation maximization decreases it, and keeps the weights positive with sum 1:

        w_i <- mean over items of w_i p_i / sum_j w_j p_j
    """
    rows = np.arange(len(labels))
    right = np.stack([np.asarray(member, np.float64)[rows, labels] for member in members]).clip(1e-300)
    weights = np.full(len(right), 1 / len(right))
    for _ in range(rounds):
        shares = weights[:, None] * right
        new = (shares / shares.sum(0)).mean(1)
        if np.abs(new - weights).max() < 1e-9:
            return new
        weights = new
    return weights


def softmax(values: np.ndarray) -> np.ndarray:
    """Compute probabilities from logits along the last axis, in float64."""
    shifted = np.asarray(values, np.float64)
    shifted = np.exp(shifted - shifted.max(-1, keepdims=True))
    result: np.ndarray = shifted / shifted.sum(-1, keepdims=True)
    return result


def normalized(weights: Sequence[float]) -> np.ndarray:
    """Normalize non-negative weights to sum 1; raises an ArgumentError for other weights."""
    array = np.asarray(weights, np.float64)
    if array.ndim != 1 or not np.isfinite(array).all() or (array < 0).any() or not array.sum() > 0:
        raise ArgumentError(f"the weights of the members are {list(weights)}, expected numbers >= 0, not all 0")
    result: np.ndarray = array / array.sum()
    return result
