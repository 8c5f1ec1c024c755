"""Checks the examples: sizes, colours, copies, classes; and possible problems."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from caffe.data.pipeline.pool import ordered
from caffe.errors import DataError
from caffe.project.sources import TRAIN, VAL, Example, Source

__all__ = ["Looked", "Picture", "look"]

_SMALL = 8
_NAMED = 3


@dataclass(frozen=True)
class Picture:
    """A readable example: its size, whether it has colours, and a digest of its pixels."""

    example: Example
    height: int
    width: int
    grey: bool
    digest: bytes


@dataclass
class Looked:
    """The usable examples, the reasons why others are not, the classes in order, and notes for the user."""

    pictures: list[Picture]
    unusable: list[tuple[str, str]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def grey(self) -> bool:
        """Whether all pictures are grey."""
        return all(picture.grey for picture in self.pictures)

    @property
    def middle(self) -> int:
        """The median of the shorter sides."""
        return int(np.median([min(picture.height, picture.width) for picture in self.pictures]))

    def counts(self, part: str | None = None) -> Counter[str]:
        """Return the number of pictures of each class, in a part or in all."""
        return Counter(p.example.label for p in self.pictures if part is None or p.example.part == part)


def look(source: Source, progress: Callable[[int], None] | None = None) -> Looked:
    """Read every example once. Raises DataError if the examples cannot be used for training."""

    def one(example: Example) -> Picture | tuple[str, str]:
        try:
            pixels = source.read(example)
        except DataError as error:
            return example.name, str(error)
        return _picture(example, pixels)

    looked = Looked([], notes=list(source.notes))
    for number, found in enumerate(ordered(one, source.examples), 1):
        if isinstance(found, Picture):
            looked.pictures.append(found)
        else:
            looked.unusable.append(found)
        if progress is not None:
            progress(number)
    if looked.unusable:
        name, why = looked.unusable[0]
        looked.notes.append(f'{len(looked.unusable)} pictures are left out, such as "{name}", which {why}')
    if not looked.pictures:
        raise DataError(f"none of the {len(source.examples)} pictures can be used; the first {looked.unusable[0][1]}")
    _match_classes(looked)
    _tell_copies(looked)
    _tell_shape(looked)
    return looked


def _picture(example: Example, pixels: np.ndarray) -> Picture:
    grey = pixels.ndim == 2 or bool((pixels[..., :1] == pixels[..., 1:]).all())
    digest = hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=16, salt=b"%d" % pixels.shape[1])
    height, width = pixels.shape[:2]
    return Picture(example, height, width, grey, digest.digest())


def _match_classes(looked: Looked) -> None:
    """Determine the classes by name: those of the training part if there is one."""
    every, train, val = looked.counts(), looked.counts(TRAIN), looked.counts(VAL)
    classes = set(train) if train else set(every)
    extra = set(val) - classes if train else set()
    if extra:
        count = sum(val[label] for label in extra)
        names = ", ".join(sorted(extra))
        looked.notes.append(f"{names}: only in the validation data, so its {count} pictures are left out")
        looked.pictures = [each for each in looked.pictures if each.example.label not in extra]
    missing = classes - set(val) if val and train else set()
    if missing:
        names = ", ".join(sorted(missing))
        looked.notes.append(f"{names}: has no validation pictures, so its accuracy is not measured")
    looked.classes = sorted(classes)
    if len(classes) < 2:
        raise DataError(f'there is one class, "{looked.classes[0]}"; a classifier needs two or more')
    counts = (train or every).most_common()
    if counts[0][1] >= 4 * counts[-1][1]:
        looked.notes.append(
            f"classes are unequal: {counts[0][1]} pictures of {counts[0][0]}, {counts[-1][1]} of {counts[-1][0]}; "
            "accuracy alone is then misleading"
        )


def _tell_copies(looked: Looked) -> None:
    same: dict[bytes, list[Example]] = defaultdict(list)
    for picture in looked.pictures:
        same[picture.digest].append(picture.example)
    groups = [group for group in same.values() if len(group) > 1]
    if not groups:
        return
    copies = sum(len(group) - 1 for group in groups)
    looked.notes.append(f"{copies} pictures are copies of others, such as {_pair(groups[0])}")
    two = [group for group in groups if len({each.label for each in group}) > 1]
    if two:
        looked.notes.append(f"{len(two)} pictures are in two classes, such as {_pair(two[0])}; one label is wrong")
    leak = [group for group in groups if {TRAIN, VAL} <= {each.part for each in group}]
    if leak:
        looked.notes.append(
            f"{len(leak)} pictures are in the training and in the validation data, such as {_pair(leak[0])}; "
            "the measured accuracy is too high"
        )


def _pair(group: list[Example]) -> str:
    first = group[0]
    second = next((each for each in group if (each.label, each.part) != (first.label, first.part)), group[1])
    return f'"{first.name}" and "{second.name}"'


def _tell_shape(looked: Looked) -> None:
    sizes = Counter((picture.width, picture.height) for picture in looked.pictures)
    small = sum(count for size, count in sizes.items() if min(size) < _SMALL)
    if small:
        looked.notes.append(f"{small} pictures are smaller than {_SMALL} pixels, which may be too small to recognize")
    grey = sum(picture.grey for picture in looked.pictures)
    if 0 < grey < len(looked.pictures):
        looked.notes.append(f"{grey} of {len(looked.pictures)} pictures are grey, the others have colours")
