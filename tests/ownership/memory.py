"""The model's memory: storages, the blobs that look at them, and the arrays that a user keeps."""

from __future__ import annotations

import contextlib
import math

import numpy as np

FLOAT32_NOISE = 4e-7  # of some additions in float32


class Rounding:
    """What float32 may do to the model's numbers: with `noise`, each result is changed at random, relative to its size.

    A second run of the model with noise tells how far rounding may carry a number of the first.
    """

    def __init__(self):
        self.noise, self.rng = 0.0, np.random.default_rng(1)

    @contextlib.contextmanager
    def noisy(self):
        self.noise = FLOAT32_NOISE
        try:
            yield
        finally:
            self.noise = 0.0

    def __call__(self, values):
        """Results of a layer or a rule as float64. Whole numbers, such as those of ArgMax, stay."""
        values = np.asarray(values, np.float64)
        if not self.noise:
            return values
        noisy = values * (1 + self.noise * self.rng.uniform(-1, 1, values.shape))
        return np.where(values == np.round(values), values, noisy)


rounding = Rounding()


class Storage:
    """One array that blobs may share. `known` is False while its values are nobody's promise."""

    def __init__(self, values):
        self.flat = np.array(values, np.float32).reshape(-1)
        self.known = True
        self.writes = 0  # of users and files
        self.runs = 0  # of layers that do not work in place

    @property
    def version(self):
        return id(self), self.writes, self.runs

    def put(self, values, known=True):
        self.flat[...] = np.asarray(values, np.float32).reshape(-1)
        self.known = known


class Half:
    """A blob's data or diff: a storage seen in a shape."""

    def __init__(self, shape, value=0.0):
        self.shape = tuple(shape)
        self.storage = Storage(np.full(math.prod(self.shape), value))

    @property
    def array(self):
        return self.storage.flat.reshape(self.shape)

    def share(self, other):
        self.storage = other.storage


class Blob:
    """`absent`: whether the last run may have left the data out. `fresh`: whether the layer must run once before the
    data is what the layer makes of it (that of a DummyData, or of a layer that shares its bottom's memory)."""

    def __init__(self, shape, kind="value"):
        self.kind = kind
        self.data, self.diff = Half(shape), Half(shape)
        self.absent = self.fresh = False

    @property
    def shape(self):
        return self.data.shape


class View:
    """An array that the user keeps of a half, or of a part of it."""

    def __init__(self, blob, which, part):
        half = getattr(blob, which)
        self.blob, self.storage = blob, half.storage
        self.kind = blob.kind if which == "data" else "value"
        self.array = half.array[part]

    @property
    def current(self):
        """Whether it shows its blob's data, and no reshape or sharing has made it an orphan."""
        return self.storage is self.blob.data.storage

    @property
    def known(self):
        return self.storage.known


class Expected:
    """What reading should give: a value, or None for anything; or an error, where `may_raise`."""

    def __init__(self, value=None, may_raise=False):
        self.value = None if value is None else np.array(value)
        self.may_raise = may_raise
