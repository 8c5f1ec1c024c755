"""Registries, which map names to classes or functions of one kind, such as layer types, update rules and fillers."""

from __future__ import annotations

import inspect
from typing import Any, Generic, TypeVar

from caffe.errors import CaffeError, NetError, did_you_mean

__all__ = ["LAYERS", "Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """The items of one kind by name. Defining an item registers it.

    For messages, `kind` names one item, such as "layer type", and `plural` the list of all. `error` is the class of
    errors. `command` is a command that prints the list, if the list is too long for a message.
    """

    def __init__(self, kind: str, error: type[CaffeError], plural: str = "types", command: str = "") -> None:
        self.kind, self.error, self.plural, self.command = kind, error, plural, command
        self.items: dict[str, T] = {}

    def check(self, name: str, item: T) -> None:
        """Raise an error if another item has this name."""
        other = self.items.get(name)
        if other is not None and other is not item:
            places = f"in {_source(other)} and in {_source(item)}"
            raise self.error(f'{self.kind} "{name}" is defined twice, {places}; rename one')

    def add(self, name: str, item: T) -> None:
        """Register an item. Raises an error if another item has this name."""
        self.check(name, item)
        self.items[name] = item

    def find(self, name: str, hint: str = "") -> T:
        """The item with this name. The error for an unknown name contains the `hint`, or else the nearest name."""
        if name not in self.items:
            raise self.error(f'unknown {self.kind} "{name}"{hint or did_you_mean(name, self.items)} {self.known()}')
        return self.items[name]

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self.items)

    def known(self) -> str:
        """All names, or the command that lists them, for a message."""
        if self.command:
            return f"({self.command} lists the {len(self.items)} known {self.plural})"
        return f"(known {self.plural}: {', '.join(self.names())})"

    def __contains__(self, name: str) -> bool:
        return name in self.items


LAYERS: Registry[Any] = Registry("layer type", NetError, command="`caffe layers`")
"""The layer types. Importing `caffe.layers` fills it. It is here for modules that must not import the layers."""


def _source(item: Any) -> str:
    """The file of a class or function; its module where there is none."""
    try:
        return inspect.getsourcefile(item) or item.__module__
    except (TypeError, OSError):
        return str(getattr(item, "__module__", item))
