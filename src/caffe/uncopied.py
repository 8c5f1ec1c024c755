"""Objects that cannot be copied or pickled: nets and solvers."""

from __future__ import annotations

from typing import ClassVar, NoReturn, SupportsIndex

from caffe.errors import CaffeError

__all__ = ["Uncopied"]


class Uncopied:
    """Base of a class with open files, threads and memory shared with other objects.

    `copy.copy`, `copy.deepcopy` and `pickle` raise a CaffeError, as they do in pycaffe: a copy would share the weights
    without a word, or read on from another record.
    """

    instead: ClassVar[str]
    """How to get what a copy is wanted for."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise CaffeError(f"a {type(self).__name__} cannot be copied or pickled; {self.instead}")
