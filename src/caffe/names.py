"""Dictionaries of a net's parts by name. The error for an unknown name suggests the nearest one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TypeVar

from caffe.errors import UnknownName, did_you_mean

__all__ = ["Named", "Results", "unknown"]

V = TypeVar("V")


def unknown(what: str, name: Any, known: Iterable[str]) -> UnknownName:
    """The error for a name that is unknown in the net. `what` is the kind of part, such as "blob"."""
    if not isinstance(name, str):
        return UnknownName(f"the net has no {what} {name!r}: expected a name (known: {', '.join(known) or 'none'})")
    return UnknownName(f'the net has no {what} "{name}"{did_you_mean(name, known)}')


class Named(OrderedDict[str, V]):
    """Blobs, layers or parameters by name, in the order of the net."""

    def __init__(self, items: Mapping[str, V] | Iterable[tuple[str, V]] = (), what: str = "blob") -> None:
        """`what` is the kind of part for error messages."""
        super().__init__(items)
        self.what = what

    def __missing__(self, name: Any) -> NoReturn:
        raise unknown(self.what, name, self)


class Results(dict[str, V]):
    """The arrays that a run of a net returns, by blob."""

    def __missing__(self, name: Any) -> NoReturn:
        raise UnknownName(
            f"this run returned no blob {name!r}{did_you_mean(str(name), self)} (it returned: {', '.join(self)}); "
            "`blobs` of forward and `diffs` of backward name further blobs"
        )
