"""Rules about loss curves, used for finished logs and for running trainings."""

from __future__ import annotations

import numpy as np

__all__ = ["APART", "FLAT", "UNDERFLOW", "first_broken", "flat_share", "grown", "least_test_loss", "stuck"]

UNDERFLOW = 87.3365
"""-ln of the smallest float32: the loss of a class with probability 0."""
FLAT = 0.02
"""The smallest change of a loss, relative to its start, that counts as a change."""
APART = 1.1
"""A net overfits if its test loss reaches this multiple of its minimum."""


def first_broken(losses: np.ndarray) -> int | None:
    """Return the index of the first loss that is NaN or infinite."""
    bad = np.flatnonzero(~np.isfinite(losses))
    return int(bad[0]) if len(bad) else None


def stuck(losses: np.ndarray, last: int = 3) -> bool:
    """Whether the last losses are all `UNDERFLOW`."""
    return len(losses) >= last and bool(np.isclose(losses[-last:], UNDERFLOW, rtol=1e-3).all())


def grown(losses: np.ndarray, first: float, last: int = 3) -> bool:
    """Whether each of the last losses is more than twice the first one."""
    return len(losses) > last and bool(losses[-last:].min() > 2 * first > 0)


def flat_share(losses: np.ndarray) -> float | None:
    """Return the change from the first quarter to the last, relative to the first; None if it is `FLAT` or more."""
    quarter = max(1, len(losses) // 4)
    begin, end = losses[:quarter].mean(), losses[-quarter:].mean()
    return float(abs(begin - end) / begin) if begin > 0 and abs(begin - end) < FLAT * begin else None


def least_test_loss(tests: np.ndarray, losses: np.ndarray, apart: float = APART) -> int | None:
    """Return the index of the smallest test loss if the net overfits, else None.

    It overfits if two or more tests have passed since, the last test loss is `apart` times as large, and the training
    loss has fallen.
    """
    if len(tests) < 4 or not len(losses):
        return None
    best = int(tests.argmin())
    quarter = max(1, len(losses) // 4)
    falls = losses[-quarter:].mean() < losses[: 2 * quarter].mean()
    return best if best < len(tests) - 2 and tests[-1] > apart * tests[best] and falls else None
