"""Matches the tensors of a file with the blobs of a net: by a list, by name, by unique shape, or by order."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from caffe.errors import DataError

__all__ = ["Group", "Match", "match"]

_IGNORED = "num_batches_tracked"
_NAMES = {"mean": "running_mean", "variance": "running_var"}
"""torch's names of the blobs of BatchNorm."""
Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass
class Group:
    """Tensors that belong together: the tensors of one torch module, or the blobs of one layer.

    BatchNorm and the Scale layer after it are one group, because torch has one module for both. `blobs` maps torch's
    names (weight, bias, running_mean, running_var) to the names of the blobs, "layer.blob".
    """

    names: list[str]
    blobs: dict[str, str] = field(default_factory=dict)


@dataclass
class Match:
    """The tensor of each blob and how it was matched, the unmatched blobs and tensors, and notes."""

    found: dict[str, tuple[str, str]] = field(default_factory=dict)
    left_tensors: list[str] = field(default_factory=list)
    left_blobs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """Return the report, with a line for each blob and each tensor."""
        width = max(map(len, self.found), default=0)
        for blob, (tensor, how) in self.found.items():
            yield f"{blob.ljust(width)}  <- {tensor}  ({how})"
        yield from self.notes
        if self.left_blobs:
            yield f"not in the file: {', '.join(self.left_blobs)}"
        if self.left_tensors:
            yield f"not in the net: {', '.join(self.left_tensors)}"
        count = len(self.found) + len(self.left_blobs)
        yield f"{len(self.found)} of {count} blobs matched"


def match(
    tensors: Mapping[str, Tensor],
    blobs: Mapping[str, tuple[int, ...]],
    groups: Sequence[Group],
    listed: Mapping[str, str] | None = None,
    by_order: bool = False,
) -> Match:
    """Match the tensors of a file with the blobs of a net. `groups` contains the blobs.

    The steps are, in this order: the pairs of `listed` (blob or layer: tensor or module); equal names of blobs and
    tensors; equal names of layers and modules, without dots, slashes, case and outer modules; shapes that occur once on
    both sides. Groups with equal shapes are matched only with `by_order`, in the order of file and net. Raises
    DataError for a list that does not fit.
    """
    made = Match()
    modules = _modules(tensors)
    left = {name: dict(own) for name, own in modules.items()}
    open_groups = list(groups)

    def take(group: Group, module: str, how: str) -> None:
        for name, blob in group.blobs.items():
            if name in left[module] and _fits(tensors[left[module][name]], blobs[blob]):
                made.found[blob] = (left[module].pop(name), how)
        open_groups.remove(group)

    for wanted, module in (listed or {}).items():
        take(_listed(wanted, module, open_groups, modules, blobs, tensors), module, "list")
    _take_own_names(tensors, blobs, left, open_groups, made)
    for how, pairs in (("name", _by_name), ("shape", _by_shape), ("order", _by_order)):
        if how != "order" or by_order:
            for group, module in pairs(open_groups, left, tensors, blobs):
                take(group, module, how)
    _finish(made, tensors, blobs, groups, open_groups, left)
    return made


def _modules(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, str]]:
    """Return the tensors of each module by the last parts of their names."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for name in tensors:
        module, _, last = name.rpartition(".")
        if last != _IGNORED:
            found[module][_NAMES.get(last, last)] = name
    return dict(found)


def _fits(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    return tuple(tensor.shape) == shape or (tensor.numel() == 1 and shape in ((), (1,)))


def _listed(
    wanted: str,
    module: str,
    open_groups: Sequence[Group],
    modules: Mapping[str, Mapping[str, str]],
    blobs: Mapping[str, tuple[int, ...]],
    tensors: Mapping[str, Tensor],
) -> Group:
    """Return the group of a layer in the list. Raises DataError if the layer, the module or the shapes do not fit."""
    group = next((each for each in open_groups if wanted in each.names), None)
    if group is None:
        raise DataError(f'the list names the layer "{wanted}", which the net does not have, or names it twice')
    if module not in modules:
        raise DataError(f'the list names the module "{module}", which the file does not have')
    for name, blob in group.blobs.items():
        there = modules[module].get(name)
        if there is not None and not _fits(tensors[there], blobs[blob]):
            raise DataError(f"{there} has the shape {tuple(tensors[there].shape)}, and {blob} {blobs[blob]}")
    return group


def _take_own_names(
    tensors: Mapping[str, Tensor],
    blobs: Mapping[str, tuple[int, ...]],
    left: dict[str, dict[str, str]],
    open_groups: list[Group],
    made: Match,
) -> None:
    """Match tensors and blobs with equal names, as in a file that was written from a net."""
    for group in list(open_groups):
        own = [blob for blob in group.blobs.values() if blob in tensors and _fits(tensors[blob], blobs[blob])]
        if len(own) < len(group.blobs):
            continue
        for blob in own:
            made.found[blob] = (blob, "name")
            module, _, last = blob.rpartition(".")
            left[module].pop(_NAMES.get(last, last), None)
        open_groups.remove(group)


def _by_name(
    open_groups: Sequence[Group],
    left: Mapping[str, Mapping[str, str]],
    tensors: Mapping[str, Tensor],
    blobs: Mapping[str, tuple[int, ...]],
) -> list[tuple[Group, str]]:
    """Return groups and modules with equal names; outer modules in the name are optional."""
    whole: dict[str, list[str]] = defaultdict(list)
    last: dict[str, list[str]] = defaultdict(list)
    for module, own in left.items():
        if own:
            whole[_letters(module)].append(module)
            last[_letters(module.rpartition(".")[2])].append(module)
    pairs = []
    for group in open_groups:
        for name in group.names:
            modules = whole.get(_letters(name)) or last.get(_letters(name)) or []
            if len(modules) == 1 and _same_weight(group, left[modules[0]], tensors, blobs):
                pairs.append((group, modules[0]))
                break
    return pairs


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _same_weight(
    group: Group, module: Mapping[str, str], tensors: Mapping[str, Tensor], blobs: Mapping[str, tuple[int, ...]]
) -> bool:
    first = next(iter(group.blobs))
    return first in module and _fits(tensors[module[first]], blobs[group.blobs[first]])


def _by_shape(
    open_groups: Sequence[Group],
    left: Mapping[str, Mapping[str, str]],
    tensors: Mapping[str, Tensor],
    blobs: Mapping[str, tuple[int, ...]],
) -> list[tuple[Group, str]]:
    """Return groups and modules whose shapes occur once on both sides."""
    mine, theirs = _signatures(open_groups, left, tensors, blobs)
    return [(own[0], theirs[key][0]) for key, own in mine.items() if len(own) == len(theirs.get(key, ())) == 1]


def _by_order(
    open_groups: Sequence[Group],
    left: Mapping[str, Mapping[str, str]],
    tensors: Mapping[str, Tensor],
    blobs: Mapping[str, tuple[int, ...]],
) -> list[tuple[Group, str]]:
    """Return groups and modules with equal shapes, in order, if their numbers are equal on both sides."""
    mine, theirs = _signatures(open_groups, left, tensors, blobs)
    equal = [(own, theirs[key]) for key, own in mine.items() if len(own) == len(theirs.get(key, ()))]
    return [pair for own, other in equal for pair in zip(own, other, strict=True)]


def _signatures(
    open_groups: Sequence[Group],
    left: Mapping[str, Mapping[str, str]],
    tensors: Mapping[str, Tensor],
    blobs: Mapping[str, tuple[int, ...]],
) -> tuple[dict[Shapes, list[Group]], dict[Shapes, list[str]]]:
    """Return groups and modules by the shapes of their tensors without biases, which torch's convolutions can omit."""
    mine: dict[Shapes, list[Group]] = defaultdict(list)
    theirs: dict[Shapes, list[str]] = defaultdict(list)
    for group in open_groups:
        kinds = {name: blobs[blob] for name, blob in group.blobs.items() if name not in ("bias", "factor")}
        mine[tuple(sorted(kinds.items()))].append(group)
    for module, own in left.items():
        shapes = {name: tuple(tensors[tensor].shape) for name, tensor in own.items() if name not in ("bias", "factor")}
        if shapes:
            theirs[tuple(sorted(shapes.items()))].append(module)
    return mine, theirs


def _finish(
    made: Match,
    tensors: Mapping[str, Tensor],
    blobs: Mapping[str, tuple[int, ...]],
    groups: Sequence[Group],
    open_groups: Sequence[Group],
    left: Mapping[str, Mapping[str, str]],
) -> None:
    """List the unmatched blobs and tensors, and sort the matched blobs in the order of the net."""
    made.found = {blob: made.found[blob] for blob in blobs if blob in made.found}
    made.left_tensors = [tensor for own in left.values() for tensor in own.values()]
    filled = {blob for group in groups if group not in open_groups for blob in group.blobs.values()}
    made.left_blobs = [blob for blob in blobs if blob not in made.found and blob not in filled]
    mine, theirs = _signatures(open_groups, left, tensors, blobs)
    for key, own in mine.items():
        others = theirs.get(key, [])
        if others:
            made.notes.append(
                f"same shapes: the layers {', '.join(group.names[0] for group in own)} and the modules "
                f"{', '.join(others)}; name the pairs in a file for -map, or take them in order with -by_order"
            )
