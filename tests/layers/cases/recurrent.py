"""Cases of caffe.layers.recurrent."""

from dataclasses import dataclass

import numpy as np

from tests.layers.case import Bottom, Case, labels, within


@dataclass(frozen=True)
class Cont(Bottom):
    """Continuation indicators: 0 at the first step, and later with probability `low`."""

    integers: bool = True

    def values(self, rng: np.random.Generator) -> np.ndarray:
        cont = (rng.random(self.shape) >= self.low).astype(np.float64)
        cont[0] = 0
        return cont


ELSEWHERE: dict[str, str] = {}
SIZE = "recurrent_param { num_output: 4 }"
EXPOSE = "recurrent_param { num_output: 4 expose_hidden: true }"
NO_SLOPE = {"gradient": "the first state gets no gradient; tests/layers/test_recurrent.py"}
X, WHOLE, RESETS, STATIC = (5, 3, 2), Cont((5, 3), 0), Cont((5, 3), 0.3), within(-1, 1, 3, 7)
STATE = within(-1, 1, 1, 3, 4), within(-0.5, 2, 1, 3, 4)
CASES = [
    Case("LSTM", "whole", (X, WHOLE), SIZE),
    Case("LSTM", "resets", (X, RESETS), SIZE),
    Case("LSTM", "more_axes", ((5, 3, 2, 7), RESETS), SIZE),
    Case("LSTM", "static", (X, RESETS, STATIC), SIZE),
    Case("LSTM", "expose", (X, RESETS, *STATE), EXPOSE, tops=3, skip=NO_SLOPE),
    Case("LSTM", "static_expose", (X, RESETS, STATIC, *STATE), EXPOSE, tops=3, skip=NO_SLOPE),
    Case("RNN", "whole", (X, WHOLE), SIZE),
    Case("RNN", "resets", (X, RESETS), SIZE),
    Case("RNN", "static", (X, RESETS, STATIC), SIZE),
    Case("RNN", "expose", (X, RESETS, STATE[0]), EXPOSE, tops=2, skip=NO_SLOPE),
    Case("LSTMUnit", "default", ((1, 5, 3), within(-3, 3, 1, 5, 12), labels(2, 1, 5)), tops=2),
]
