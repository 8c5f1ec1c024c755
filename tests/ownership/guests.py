"""Python layers of users, which keep the arrays that they get and use them in later calls.

Each multiplies its bottom by a number, which is also in tests.ownership.layers_more.Python.
"""

from __future__ import annotations

import caffe


class _Instance(caffe.Layer):
    factor = 1.0

    def setup(self, bottom, top):
        self.x = bottom[0].data if self.param_str == "early" else None
        self.y = self.dx = None

    def reshape(self, bottom, top):
        if self.shared:
            return
        shape = bottom[0].data.shape
        if self.x is not None and self.x.shape != shape:
            self.x = None  # after a reshape to another size, the kept array no longer belongs to the blob
        if self.y is None or self.y.shape != shape:
            top[0].reshape(*shape)
            self.y = self.dx = None

    shared = False

    def forward(self, bottom, top):
        top[0].data[...] = self.factor * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = self.factor * top[0].diff


class KeepBottom(_Instance):
    factor = 2.0

    def forward(self, bottom, top):
        if self.x is None:
            self.x = bottom[0].data
        top[0].data[...] = self.factor * self.x

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            if self.dx is None or self.dx.shape != bottom[0].data.shape:
                self.dx = bottom[0].diff
            self.dx[...] = self.factor * top[0].diff


class KeepTop(_Instance):
    factor = 3.0

    def forward(self, bottom, top):
        if self.y is None:
            self.y = top[0].data
        self.y[...] = self.factor * bottom[0].data


class InPlace(_Instance):
    factor = 0.5
    shared = True


class NoBackward(_Instance):
    factor = -1.0

    def backward(self, top, propagate_down, bottom):
        pass
