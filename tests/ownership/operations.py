"""Operations on arrays.

Each chooses random arguments, can tell whether it applies, changes the model, and gives a line of a script.
"""

from __future__ import annotations

import numpy as np

from tests.ownership.memory import Expected
from tests.ownership.world import drawn, drawn_code

PARTS = ("...", "...", "...", "1:", ":1", "..., :1", "..., 1:", "-1")


class Operation:
    """An operation, whose `arguments` are plain values.

    `weight` is its relative frequency; `own` marks an operation that the original does not have; `mode` is the only
    mode in which it is chosen.
    """

    weight = 1.0
    own = False
    mode = None

    def __init__(self, *arguments):
        self.arguments = arguments

    @classmethod
    def draw(cls, rng, world):
        """Return random arguments, or None if there is no choice."""
        raise NotImplementedError

    def applies(self, world, *arguments):
        return True

    def apply(self, world, *arguments):
        """Change the model; return the value of `seen` after the line: an Expected, a dict of them, or None."""
        raise NotImplementedError

    def code(self, world, *arguments):
        """Return the line of the script; called before the model changes."""
        raise NotImplementedError

    def __repr__(self):
        return f"{type(self).__name__}{self.arguments!r}"


def place_code(place):
    net, kind, name, index = place
    return f'{net}.blobs["{name}"]' if kind == "blob" else f'{net}.params["{name}"][{index}]'


def draw_place(rng, world, weights=0.35):
    """Return (net, "blob" or "param", name, index)."""
    if world.focus and rng.random() < 0.7:
        return rng.choice(world.focus)
    name = rng.choice(list(world.nets))
    net = world.nets[name]
    if net.params and rng.random() < weights:
        layer = rng.choice(list(net.params))
        return name, "param", layer, rng.randrange(len(net.params[layer]))
    pool = list(net.blobs) if rng.random() < 0.7 else net.sources
    return name, "blob", rng.choice(pool), 0


def draw_half(rng):
    return rng.choice(["data", "data", "data", "diff"])


def part_of(text):
    return eval(f"np.s_[{text}]", {"np": np})


def draw_part(rng, half):
    if not half.shape or half.shape[0] < 2 or half.shape[-1] < 2:
        return "..."
    return rng.choice(PARTS if len(half.shape) > 1 else PARTS[:-1])


def is_there(world, place, half):
    """Whether the net has the blob, and the last run has computed it."""
    blob = world.blob(place)
    if blob is None or blob.absent or blob.fresh:
        return False
    return half == "data" or blob.diff.storage.known


def is_given(world, place, half):
    """Whether real Caffe's array is the user's own array of MemoryData, which a write would change."""
    if not world.real or place[1] == "param" or half == "diff":
        return False
    memory = world.memory(world.nets[place[0]])
    return memory is not None and any(top.data.storage is world.half(place, half).storage for top in memory.tops)


class Read(Operation):
    weight = 3

    @classmethod
    def draw(cls, rng, world):
        return draw_place(rng, world), draw_half(rng)

    def applies(self, world, place, half):
        blob = world.blob(place)
        return blob is not None and not blob.fresh and world.half(place, half).storage.known

    def apply(self, world, place, half):
        return Expected(world.half(place, half).array, may_raise=half == "data" and world.blob(place).absent)

    def code(self, world, place, half):
        return f"seen = np.array({place_code(place)}.{half})"


class Write(Operation):
    weight = 4

    @classmethod
    def draw(cls, rng, world):
        place, half = draw_place(rng, world), draw_half(rng)
        return place, half, draw_part(rng, world.half(place, half)), rng.randrange(1000)

    def applies(self, world, place, half, part, seed):
        return is_there(world, place, half) and not is_given(world, place, half)

    def _values(self, world, place, half, part, seed):
        array = world.half(place, half).array[part_of(part)]
        return world.blob(place).kind if half == "data" else "value", seed, array.shape

    def apply(self, world, place, half, part, seed):
        found = world.half(place, half)
        found.array[part_of(part)] = drawn(*self._values(world, place, half, part, seed))
        found.storage.known = found.storage.known or part == "..."
        found.storage.writes += 1

    def code(self, world, place, half, part, seed):
        values = drawn_code(*self._values(world, place, half, part, seed))
        return f"{place_code(place)}.{half}[{part}] = {values}"


class Keep(Operation):
    weight = 3

    @classmethod
    def draw(cls, rng, world):
        place, half = draw_place(rng, world), draw_half(rng)
        if len(world.views) > 4:
            return None
        name = f"kept{rng.randrange(100)}"
        part = draw_part(rng, world.half(place, half))
        return name, place, half, part

    def applies(self, world, name, place, half, part):
        return is_there(world, place, half) and not is_given(world, place, half) and name not in world.views

    def apply(self, world, name, place, half, part):
        world.keep(name, place, half, part_of(part))

    def code(self, world, name, place, half, part):
        array = f"{place_code(place)}.{half}"
        return f"{name} = {array}" if part == "..." else f"{name} = {array}[{part}]"


class Drop(Operation):
    weight = 1.5

    @classmethod
    def draw(cls, rng, world):
        return (rng.choice(list(world.views)),) if world.views else None

    def applies(self, world, name):
        return name in world.views

    def apply(self, world, name):
        del world.views[name]

    def code(self, world, name):
        return f"del {name}"


class WriteKept(Operation):
    """A write through a kept array. If a reshape has detached the array, the write does not affect the net."""

    weight = 3

    @classmethod
    def draw(cls, rng, world):
        return (rng.choice(list(world.views)), rng.randrange(1000)) if world.views else None

    def applies(self, world, name, seed):
        return name in world.views and world.views[name].known

    def apply(self, world, name, seed):
        view = world.views[name]
        view.array[...] = drawn(view.kind, seed, view.array.shape)
        view.storage.writes += 1

    def code(self, world, name, seed):
        view = world.views[name]
        return f"{name}[...] = {drawn_code(view.kind, seed, view.array.shape)}"


class WriteDrop(WriteKept):
    """A write through an array that is deleted before the next run."""

    weight = 1.5

    def apply(self, world, name, seed):
        super().apply(world, name, seed)
        del world.views[name]

    def code(self, world, name, seed):
        return f"{super().code(world, name, seed)}; del {name}"


class Collect(Operation):
    weight = 0.1

    @classmethod
    def draw(cls, rng, world):
        return ()

    def apply(self, world):
        pass

    def code(self, world):
        return "gc.collect()"


class SetArrays(Operation):
    """New arrays for MemoryData."""

    @classmethod
    def draw(cls, rng, world):
        return rng.choice(list(world.nets)), rng.randrange(1000)

    def applies(self, world, name, seed):
        return name in world.nets and world.memory(world.nets[name]) is not None

    def apply(self, world, name, seed):
        world.set_arrays(name, seed)

    def code(self, world, name, seed):
        return set_arrays_code(world, name, seed)


class ChangeArrays(SetArrays):
    """A write to the user's arrays of MemoryData: the next batch contains it, the current one may."""

    weight = 1.5

    def apply(self, world, name, seed):
        data = world.user[f"{name}_data"]
        data[...] = drawn("value", seed, data.shape)
        world.memory(world.nets[name]).tops[0].data.storage.known = False

    def code(self, world, name, seed):
        return f"{name}_data[...] = values({seed}, {world.user[f'{name}_data'].shape})"


def set_arrays_code(world, name, seed):
    (data, label) = (drawn_code(kind, each, shape) for shape, kind, each in world.arrays_of(name, seed))
    return f"{name}_data, {name}_label = {data}, {label}; {name}.set_input_arrays({name}_data, {name}_label)"
