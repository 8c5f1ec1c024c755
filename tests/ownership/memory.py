"""The model's memory: storages, the blobs that refer to them, and the arrays that a user keeps."""

from __future__ import annotations

import contextlib
import math

import numpy as np

FLOAT32_NOISE = 4e-7  # of some additions in float32


class Rounding:
    """The effect of float32 rounding on the model's numbers. With `noise`, each result is changed at random, relative
    to its size.

    A second run of the model with noise shows by how much rounding can change a number of the first.
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
        """Return results of a layer or a rule as float64, with noise.

        Whole numbers, such as those of ArgMax, do not change.
        """
        values = np.asarray(values, np.float64)
        if not self.noise:
            return values
        noisy = values * (1 + self.noise * self.rng.uniform(-1, 1, values.shape))
        return np.where(values == np.round(values), values, noisy)


rounding = Rounding()


class Storage:
    """An array that blobs can share. `known` is False while its values are undefined."""

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
    """The data or diff of a blob: a storage with a shape."""

    def __init__(self, shape, value=0.0):
        self.shape = tuple(shape)
        self.storage = Storage(np.full(math.prod(self.shape), value))

    @property
    def array(self):
        return self.storage.flat.reshape(self.shape)

    def share(self, other):
        self.storage = other.storage


class Blob:
    """`absent`: whether the last run may not have computed the data.

    `fresh`: whether the layer must run once before the data are defined (for DummyData, and for a layer that shares the
    memory of its bottom).
    """

    def __init__(self, shape, kind="value"):
        self.kind = kind
        self.data, self.diff = Half(shape), Half(shape)
        self.absent = self.fresh = False

    @property
    def shape(self):
        return self.data.shape


class View:
    """An array of the data or diff of a blob, or of a part of it, which the user keeps."""

    def __init__(self, blob, which, part):
        half = getattr(blob, which)
        self.blob, self.storage = blob, half.storage
        self.kind = blob.kind if which == "data" else "value"
        self.array = half.array[part]

    @property
    def current(self):
        """Whether the array still belongs to the blob: no reshape or sharing has replaced the blob's memory."""
        return self.storage is self.blob.data.storage

    @property
    def known(self):
        return self.storage.known


class Expected:
    """The expected result of a read: a value, None for any value, or, with `may_raise`, also an error."""

    def __init__(self, value=None, may_raise=False):
        self.value = None if value is None else np.array(value)
        self.may_raise = may_raise
