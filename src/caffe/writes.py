"""Notices when parameters change, for those who keep something that was computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

__all__ = ["Watch", "note_write", "share_writes", "writes_of"]


class _Lent(Protocol):
    """What can be lent: an array of a parameter, of which it is known whether somebody still holds it."""

    @property
    def held(self) -> bool: ...


class Writes:
    """What torch does not count of the writes to a parameter: those through numpy arrays, and those that say so."""

    __slots__ = ("count", "lent", "parameters")

    def __init__(self) -> None:
        self.count = 0
        self.lent: list[_Lent] = []
        self.parameters: list[Tensor] = []  # those that share one memory under several shapes

    def __reduce__(self) -> tuple[type[Writes], tuple[()]]:
        return Writes, ()  # for torch.save: a copy has no readers

    def lend(self, array: _Lent) -> None:
        """An array was handed out: it may be written until nobody holds it."""
        self.count += 1
        if all(array is not other for other in self.lent):
            self.lent.append(array)

    def under_way(self) -> bool:
        """Whether somebody holds an array, which he may have written to at any time."""
        self.lent = [array for array in self.lent if array.held]
        return bool(self.lent)


def writes_of(parameter: Tensor) -> Writes:
    """The record of the writes to a parameter, from the first call on."""
    writes = parameter.__dict__.get("writes")
    if writes is None:
        writes = parameter.writes = Writes()  # type: ignore[attr-defined]
    return writes


def share_writes(alias: Tensor, owner: Tensor) -> None:
    """Make a write to one of two parameters over the same memory count for both."""
    writes = writes_of(owner)
    alias.writes = writes  # type: ignore[attr-defined]
    for parameter in (owner, alias):
        if all(parameter is not other for other in writes.parameters):
            writes.parameters.append(parameter)


def note_write(parameter: Tensor) -> None:
    """Say that a parameter's values were changed behind the back of torch's count, as through `parameter.data`."""
    writes_of(parameter).count += 1


class Watch:
    """Tells whether parameters may have changed since one last looked.

    It sees torch's operations, arrays that `ParamBlob.data` handed out, and `note_write`; not a write through
    `parameter.data` that nobody notes.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        tied = [(parameter, writes_of(parameter)) for parameter in parameters]
        self._watched = [(each, writes) for parameter, writes in tied for each in writes.parameters or [parameter]]
        self._seen: list[tuple[int, int, int]] = []

    def changed(self) -> bool:
        """Whether any of them may have changed since the last call; True at the first."""
        now = [(parameter._version, parameter.data_ptr(), writes.count) for parameter, writes in self._watched]
        if now == self._seen:
            return any(writes.lent and writes.under_way() for _, writes in self._watched)
        self._seen = now
        return True
