"""BlobVec: the list of a layer's blobs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, SupportsIndex, overload

from caffe.blob import Blob, sizes
from caffe.errors import ArgumentType, CaffeError, NoSuchIndex

__all__ = ["BlobVec"]


class BlobVec(list[Blob]):
    """The blobs of a layer. The class has the name that it has in pycaffe.

    A user's Python layer adds its parameters with `append` or `add_blob`. The lists of other layers cannot be changed.
    """

    __slots__ = ("_fixed",)

    def __init__(self, blobs: Iterable[Blob] = (), fixed: str = "") -> None:
        """`fixed` is the name of the layer, if its number of blobs cannot change."""
        super().__init__(blobs)
        self._fixed = fixed

    def add_blob(self, *shape: int, **unknown: Any) -> None:
        """Append a blob of zeros."""
        self.append(Blob(*sizes("add_blob", shape, unknown)))

    def __reduce__(self) -> tuple[Any, ...]:
        return BlobVec, (list(self), self._fixed)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Blob: ...
    @overload
    def __getitem__(self, index: slice) -> BlobVec: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Blob | BlobVec:
        if isinstance(index, slice):
            return BlobVec(super().__getitem__(index), self._fixed)
        try:
            return super().__getitem__(index)
        except IndexError:
            owner = self._fixed or "the layer"
            raise NoSuchIndex(f"{owner} has {len(self)} blob(s), counted from 0, and no number {index}") from None
        except TypeError:
            raise ArgumentType(f"{self._fixed or 'a layer'}: blobs are found by number, got {index!r}") from None


def _unless_fixed(name: str) -> Callable[..., Any]:
    """The list method `name`, which raises a CaffeError if the layer's list cannot be changed."""
    change = getattr(list, name)

    @functools.wraps(change)
    def method(self: BlobVec, *args: Any) -> Any:
        if self._fixed:
            raise CaffeError(
                f"{self._fixed} has {len(self)} blob(s), as its type and options say: blobs cannot be added, removed "
                "or replaced; write into their data instead, or change the layer's options in the prototxt"
            )
        return change(self, *args)

    return method


for _name in ("append", "extend", "insert", "pop", "remove", "clear", "__setitem__", "__delitem__", "__iadd__"):
    setattr(BlobVec, _name, _unless_fixed(_name))
