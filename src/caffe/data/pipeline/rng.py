"""Random numbers that depend on their purpose and not on the order of calls."""

from __future__ import annotations

import numpy as np

__all__ = ["generator"]


def generator(seed: int, number: int, stream: int = 0) -> np.random.Generator:
    """Create the generator for batch (or epoch) `number` of a source with this seed.

    `stream` separates independent uses.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox).
    """
    return np.random.Generator(np.random.Philox(key=seed | number << 64, counter=stream << 192))
