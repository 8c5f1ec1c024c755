"""The exceptions that Cafetière raises.

Every error of ours says where it arose, what is the case, what was expected and, where there is one, the way out.
Nothing in the package aborts, exits or asserts on what a user gave it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CaffeError",
    "DataError",
    "FileError",
    "LayerError",
    "MissingExtra",
    "NetError",
    "ProtoError",
    "SolverError",
    "did_you_mean",
    "require_extra",
]


class CaffeError(RuntimeError):
    """Base of all errors raised by the package; a `RuntimeError`, as pycaffe raised."""


class FileError(CaffeError):
    """A file that is missing, unreadable, truncated or of another kind than expected."""


class ProtoError(CaffeError):
    """Text or bytes that are not a valid message of `caffe.proto`."""


class NetError(CaffeError):
    """A net whose layers do not fit together."""


class LayerError(NetError):
    """A layer's option, bottom or parameter that the layer cannot work with."""


class SolverError(CaffeError):
    """A solver setting that is missing, unknown or contradictory."""


class DataError(CaffeError):
    """A record of a data source that cannot be used; names the source and the key."""


class MissingExtra(CaffeError):
    """An optional dependency that is not installed; names the pip line that installs it."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`'; did you mean "Pooling"?'` for the known name that begins with `word`, or is closest to it.

    An empty string where there is none.
    """
    names = {name.lower(): name for name in known}
    begun = sorted((name for name in names if name.startswith(word.lower())), key=len) if len(word) > 1 else []
    close = begun or difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    return f'; did you mean "{names[close[0]]}"?' if close else ""


def require_extra(module: str, extra: str, purpose: str) -> object:
    """Import and return an optional module, or raise `MissingExtra` with its package and pip line."""
    import importlib

    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f'{purpose} needs the Python package "{package}", which is not installed; '
            f"install it with: pip install 'cafetiere[{extra}]'"
        ) from error
