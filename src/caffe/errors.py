"""The exceptions that Cafetière raises.

The text of each error states where it occurred, what was found, what was expected and, if possible, how to fix it. The
package never aborts, exits or asserts because of user input.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Self

__all__ = [
    "ArgumentError",
    "ArgumentType",
    "CaffeError",
    "CropError",
    "DataError",
    "FieldError",
    "FileError",
    "FixedError",
    "ImageError",
    "InputError",
    "LayerError",
    "MissingExtra",
    "MissingImage",
    "NetError",
    "NoSuchBlob",
    "NoSuchIndex",
    "NotATop",
    "ParallelError",
    "ProtoError",
    "RecordError",
    "SolverError",
    "UnknownName",
    "WindowError",
    "as_index",
    "did_you_mean",
    "nearest",
    "require_extra",
]


class CaffeError(RuntimeError):
    """Base of all errors raised by the package; a `RuntimeError`, as pycaffe raised.

    The text is complete. `layer` (a name), `path` and `line` give the place to programs, and `shape` is the shape of an
    array or tensor that does not fit. They are None if unknown:

        except caffe.CaffeError as error:
            print(error.path, error.line, error.layer, error.shape)
    """

    layer: str | None = None
    path: str | None = None
    line: int | None = None
    shape: tuple[int, ...] | None = None

    def at(
        self,
        layer: str | None = None,
        path: str | None = None,
        line: int | None = None,
        shape: Iterable[int] | None = None,
    ) -> Self:
        """Set the attributes that are unknown. Returns the error itself."""
        self.layer = layer if self.layer is None else self.layer
        if self.shape is None and shape is not None:
            self.shape = tuple(shape)
        if self.path is None and path is not None:
            self.path, self.line = path, line
        return self

    def placed(self, place: str) -> Self:
        """The error with `place`, such as `file:line`, in front of its text. Unchanged if `place` is empty."""
        if not place:
            return self
        path, _, line = place.rpartition(":")
        found = (path, int(line)) if line.isdigit() else (place, None)
        return self.reworded(f"{place}: {self}").at(None, *found)

    def reworded(self, text: str) -> Self:
        """A copy of the error with another text."""
        other = type(self)(text)
        other.layer, other.path, other.line, other.shape = self.layer, self.path, self.line, self.shape
        return other


class FileError(CaffeError):
    """A file that is missing, unreadable, truncated or of another kind than expected."""


class ProtoError(CaffeError):
    """Text or bytes that are not a valid message of `caffe.proto`."""


class NetError(CaffeError):
    """A net with inconsistent layers."""


class LayerError(NetError):
    """An invalid option, bottom or parameter of a layer."""


class SolverError(CaffeError):
    """A solver setting that is missing, unknown or contradictory."""


class DataError(CaffeError):
    """An invalid record of a data source. The text names the source and the key."""


class ParallelError(CaffeError):
    """A failure of distributed training: a process was lost, did not connect, or has different weights."""


class MissingExtra(CaffeError, ImportError):
    """An optional dependency that is not installed; names the pip line that installs it."""


# -- errors that scripts written for pycaffe catch as exceptions of Python --------------------------------------------


class UnknownName(NetError, KeyError, ValueError):
    """A blob or layer that a net does not have: pycaffe raises KeyError for a blob, ValueError for a layer."""

    __str__ = Exception.__str__  # that of KeyError would put the text in quotes


class InputError(NetError, ValueError):
    """An array or tensor whose shape does not match the blob or input."""


class ArgumentError(CaffeError, ValueError):
    """An invalid argument of a function for images, drawings or devices."""


class ArgumentType(CaffeError, TypeError):
    """An argument of the wrong type."""


class RecordError(DataError, ValueError):
    """A message (BlobProto, Datum) or an array that cannot be converted into the other."""


class ImageError(FileError, OSError):
    """An image file that is missing or cannot be decoded."""


class MissingImage(ImageError, FileNotFoundError):
    """An image file that does not exist."""


class WindowError(CaffeError, AssertionError):
    """A window that lies outside its image."""


class CropError(NetError, AssertionError):
    """Two blobs of a NetSpec of which one cannot be cropped to the other."""


class FieldError(ProtoError, AttributeError, TypeError, ValueError):
    """A field that a message does not have, or a value that the field cannot hold."""


class FixedError(NetError, AttributeError):
    """An attribute that cannot be replaced."""


class NoSuchIndex(NetError, IndexError):
    """An index of a blob that a layer does not have."""


class NotATop(NetError, TypeError):
    """A bottom of a NetSpec layer that is not a blob."""


class NoSuchBlob(NetError, AttributeError, KeyError):
    """The name of a blob that a NetSpec does not have."""

    __str__ = Exception.__str__


def as_index(what: str, value: object) -> int:
    """`value` as an integer. Raises an ArgumentType, whose text begins with `what`, if it is not one."""
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ArgumentType(f"{what} is {value!r}, a {type(value).__name__}; expected a whole number") from None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`'; did you mean "Pooling"?'` if `word` is the beginning or a misspelling of a known name.

    Otherwise an empty string: a name that is only similar may mean something else.
    """
    name = nearest(word, known)
    return f'; did you mean "{name}"?' if name else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known name that was probably meant by `word`, or an empty string.

    The following are tried in this order: the same name in other case or with other separators; a name that begins with
    `word`, if `word` is at least a third of it; a name few edits away, with the same first letters and the same digits.
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
    """Whether `word` is a misspelling of `name`: at most one edit per four letters."""
    shorter = min(len(word), len(name))
    if shorter < 2 or abs(len(word) - len(name)) > max(1, shorter // 4):
        return False
    if word[0] != name[0] and word[:2] != name[1::-1]:
        return False
    digits, others = (sorted(filter(str.isdigit, text)) for text in (word, name))
    if digits and others and digits != others:  # conv1 is different from conv2
        return False
    if shorter <= 3:  # the same letters, or one removed or added inside
        inside = len(word) != len(name) and word[-1] == name[-1] and _edits(word, name) == 1
        return inside or set(word) == set(name)
    return _edits(word, name) <= max(1, shorter // 4)


def _edits(word: str, name: str) -> int:
    """Return the number of letters to insert, remove, replace, or swap with their neighbour, to turn one name into the
    other.
    """
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
