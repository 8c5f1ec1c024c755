"""Splits examples into training and validation data."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from caffe.data.pipeline.rng import generator
from caffe.errors import DataError
from caffe.project.looking import Looked, Picture
from caffe.project.sources import TRAIN, VAL

__all__ = ["split"]


def split(looked: Looked, share: int, seed: int) -> tuple[list[Picture], list[Picture]]:
    """Return the training and the validation pictures.

    Given parts are kept. Otherwise `share` percent of each class are drawn at random for validation, with the seed.
    Pictures of one group, and copies, are kept together. Each class keeps at least one training picture.
    """
    given = {picture.example.part for picture in looked.pictures}
    if VAL in given:
        if "" in given:
            raise DataError(
                "some examples name the part they belong to and others do not; name it for all, or for none"
            )
        chosen = {id(picture) for picture in looked.pictures if picture.example.part == VAL}
    else:
        if not 1 <= share <= 90:
            raise DataError(f"-val {share}: expected the percentage of pictures that validate, 1 to 90")
        chosen = _drawn(looked.pictures, share, seed)
    parts = (
        [p for p in looked.pictures if id(p) not in chosen],
        [p for p in looked.pictures if id(p) in chosen],
    )
    if not parts[1]:
        raise DataError("no pictures are left to validate with; give more pictures of each class")
    train, val = ([_as(part, picture) for picture in each] for part, each in zip((TRAIN, VAL), parts, strict=True))
    absent = sorted(set(looked.classes) - {picture.example.label for picture in val})
    if absent and VAL not in given:
        looked.notes.append(
            f"{', '.join(absent)}: too few pictures or groups for validation; all are used for training"
        )
    return train, val


def _as(part: str, picture: Picture) -> Picture:
    return replace(picture, example=replace(picture.example, part=part))


def _drawn(pictures: list[Picture], share: int, seed: int) -> set[int]:
    """Return the `id` of the validation pictures."""
    bundles = _bundles(pictures)
    by_class: dict[str, list[list[Picture]]] = defaultdict(list)
    for bundle in bundles:
        by_class[bundle[0].example.label].append(bundle)
    chosen: set[int] = set()
    for number, label in enumerate(sorted(by_class)):
        own = by_class[label]
        wanted = max(1, round(sum(map(len, own)) * share / 100))
        taken = 0
        for index in generator(seed, number).permutation(len(own))[: len(own) - 1]:
            bundle = own[index]
            if taken and taken + len(bundle) > wanted * 1.2:
                continue
            chosen.update(map(id, bundle))
            taken += len(bundle)
            if taken >= wanted:
                break
    return chosen


def _bundles(pictures: list[Picture]) -> list[list[Picture]]:
    """Return groups of pictures that must be kept together: of the same group, or with the same pixels."""
    leader = list(range(len(pictures)))

    def find(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    first: dict[object, int] = {}
    for index, picture in enumerate(pictures):
        for mark in (picture.digest, picture.example.group):
            if mark:
                leader[find(index)] = find(first.setdefault(mark, index))
    bundles: dict[int, list[Picture]] = defaultdict(list)
    for index, picture in enumerate(pictures):
        bundles[find(index)].append(picture)
    return list(bundles.values())
