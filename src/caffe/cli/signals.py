"""The effect of signals on a training run: `-sigint_effect`, `-sigterm_effect` and `-sighup_effect`."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from caffe.errors import CaffeError, did_you_mean
from caffe.signal_handlers import handling

__all__ = ["EFFECTS", "FLAGS", "acting", "check_effect"]

EFFECTS = ("snapshot", "stop", "none")
FLAGS = {"SIGINT": "sigint_effect", "SIGTERM": "sigterm_effect", "SIGHUP": "sighup_effect"}
"""The flag for the effect of each signal."""


def check_effect(flag: str, effect: str) -> None:
    """Raise an error unless `effect` is a possible effect of a signal."""
    if effect not in EFFECTS:
        hint = did_you_mean(effect, EFFECTS)
        raise CaffeError(f'Invalid signal effect "{effect}" was specified for -{flag}{hint} ({", ".join(EFFECTS)})')


@contextmanager
def acting(effects: Mapping[str, str], request: Callable[[str], None], tell: Callable[[str], None]) -> Iterator[None]:
    """Turn signals into requests to the solver, which handles them between two iterations.

    `effects` maps the names in `FLAGS` to an effect; `tell` prints a line for the user. A second stop signal ends the
    run at once, without a snapshot. Signals that the platform does not have are ignored.
    """
    stopping = False

    def act(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        effect = effects[signal.Signals(number).name]
        if effect == "stop" and stopping:
            raise KeyboardInterrupt
        if effect != "none":
            request(effect)
        if effect == "stop":
            stopping = True
            tell("stopping after this iteration; interrupt again to stop at once, without a snapshot")
        elif effect == "snapshot":
            tell("taking a snapshot after this iteration")

    with handling(effects, act, workers_ignore=("SIGINT", "SIGHUP")):
        yield
