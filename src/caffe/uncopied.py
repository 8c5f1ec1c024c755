"""Objects that cannot be copied or pickled: nets and solvers."""

from __future__ import annotations

from typing import ClassVar, NoReturn, SupportsIndex

from caffe.errors import CaffeError

__all__ = ["Uncopied"]


class Uncopied:
    """Base of a class with open files, threads and memory shared with other objects.

    `copy.copy`, `copy.deepcopy` and `pickle` raise a CaffeError, as in pycaffe. A copy would silently share the weights
    or continue from another record.
    """

    instead: ClassVar[str]
    """What to do instead of copying."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise CaffeError(f"a {type(self).__name__} cannot be copied or pickled; {self.instead}")
