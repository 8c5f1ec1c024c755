"""Describes exceptions of users' Python code: where they were raised, and what to change in code for Python 2."""

from __future__ import annotations

import os
import traceback
from collections.abc import Collection

__all__ = ["place", "remedy"]

_NAMES = frozenset(
    ("basestring", "cmp", "execfile", "file", "long", "raw_input", "reduce", "reload", "unichr", "unicode", "xrange")
)
_ATTRIBUTES = frozenset(("has_key", "iteritems", "iterkeys", "itervalues"))
_MODULES = frozenset(
    ("ConfigParser", "Queue", "StringIO", "Tkinter", "__builtin__", "cPickle", "cStringIO", "urllib2", "urlparse")
)
_SYNTAX = (
    "Missing parentheses in call to",
    "multiple exception types must be parenthesized",
    "leading zeros in decimal",
    "inconsistent use of tabs",
)
_CONVERT = "this is code for Python 2: convert the file, for example with `2to3 -w` (part of Python up to 3.12)"
_YAML = "PyYAML 6 and later need yaml.safe_load(text) here"


def place(error: BaseException, own: Collection[str] = (), source: str | None = None) -> str:
    """The file and line, as FILE:LINE, at which the error was raised; an empty string if no frame is known.

    Frames of importlib and of the files `own` do not count. Frames of the file `source` are preferred, if there are
    any. For a syntax error the result is its own file and line.
    """
    if isinstance(error, SyntaxError) and os.path.isfile(error.filename or ""):
        return f"{error.filename}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename not in own]
    frames = [frame for frame in frames if "importlib" not in frame.filename]
    frames = [frame for frame in frames if frame.filename == source] or frames
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def remedy(error: BaseException) -> str:
    """What to change if the error shows code for Python 2 or for PyYAML before version 6; else an empty string."""
    if isinstance(error, TypeError) and "load() missing 1 required positional argument: 'Loader'" in str(error):
        return _YAML
    if isinstance(error, ModuleNotFoundError):
        return _CONVERT if error.name in _MODULES else _relative(error)
    if isinstance(error, SyntaxError):
        return _CONVERT if str(error.msg).startswith(_SYNTAX) else ""
    if isinstance(error, NameError):
        return _CONVERT if error.name in _NAMES else ""
    if isinstance(error, AttributeError):
        return _CONVERT if error.name in _ATTRIBUTES else ""
    return ""


def _relative(error: ModuleNotFoundError) -> str:
    """What to change if the missing module is a file beside the one that imports it, where only Python 2 looks."""
    folder = os.path.dirname(place(error).rpartition(":")[0])
    path = os.path.join(folder, f"{error.name}.py")
    if not folder or not os.path.isfile(path):
        return ""
    return f'{path} exists, but Python 3 needs "from .{error.name} import ..." (or {folder} on $PYTHONPATH)'
