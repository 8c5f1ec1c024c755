"""The exceptions that Cafetière raises.

Every error of ours says where it arose, what is the case, what was expected and, where there is one, the way out.
Nothing in the package aborts, exits or asserts on what a user gave it.
"""

from __future__ import annotations

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
    "nearest",
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
    """`'; did you mean "Pooling"?'` for the known name of which `word` is the beginning or a misspelling.

    An empty string where there is none: a name that is merely alike may stand for something else.
    """
    name = nearest(word, known)
    return f'; did you mean "{name}"?' if name else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """The known name that `word` was probably meant to be, or an empty string.

    These count, in this order: the same name in other case or with other separators; a name that begins with `word`,
    if that is at least a third of it; a name few edits away, with the same first letters and the same digits.
    """
    names = {_plain(name): name for name in sorted(known, reverse=True)}
    plain = _plain(word)
    if plain in names:
        return names[plain]
    begun = sorted((name for name in names if name.startswith(plain)), key=len)
    if len(plain) >= 4 and begun and len(begun[0]) <= 3 * len(plain) and all(n.startswith(begun[0]) for n in begun):
        return names[begun[0]]
    candidates = [name for name in names if _is_misspelling(plain, name)]
    close = min(candidates, key=lambda name: (_edits(plain, name), set(plain) != set(name)), default="")
    return names[close] if close else ""


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


def _is_misspelling(word: str, name: str) -> bool:
    """Whether `word` differs from `name` as a misspelling does: an edit for each four letters."""
    shorter = min(len(word), len(name))
    if shorter < 2 or abs(len(word) - len(name)) > max(1, shorter // 4):
        return False
    if word[0] != name[0] and word[:2] != name[1::-1]:
        return False
    digits, others = (sorted(filter(str.isdigit, text)) for text in (word, name))
    if digits and others and digits != others:  # conv1 is not conv2
        return False
    if shorter <= 3:  # the same letters, or one left out or added inside
        inside = len(word) != len(name) and word[-1] == name[-1] and _edits(word, name) == 1
        return inside or set(word) == set(name)
    return _edits(word, name) <= max(1, shorter // 4)


def _edits(word: str, name: str) -> int:
    """Letters to insert, remove, replace, or exchange with their neighbour, to make one name of the other."""
    before: list[int] = []
    row = list(range(len(name) + 1))
    for i, letter in enumerate(word, 1):
        last, before, row = before, row, [i]
        for j, other in enumerate(name, 1):
            edits = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == name[j - 2] and word[i - 2] == other:
                edits = min(edits, last[j - 2] + 1)
            row.append(edits)
    return row[-1]


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
