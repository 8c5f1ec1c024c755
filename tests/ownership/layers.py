"""Layers in numpy: forward and backward by Caffe's formulas, in float64, each result a new array.

`forward(x, p)` takes arrays of the bottoms and parameters and returns those of the tops; `backward(g, x, y, p)` takes
the tops' diffs and the data as they are at that time, and returns the diffs of bottoms and parameters. A layer whose
formula reads values of the forward pass keeps them in `self.kept`.
"""

from __future__ import annotations

import math

import numpy as np

KINK = 1e-5


class FragileError(Exception):
    """A value is so near to a kink that the gradient depends on rounding, so the sequence cannot be compared."""


class Layer:
    """`direct`: whether backward depends only on the values that bottoms and parameters have when it runs.

    Only for such layers does the test write between forward and backward.
    """

    direct = False
    exempt = ()  # bottoms that force_backward leaves out
    loss = False
    trained = True  # whether params get gradients
    silent = False  # whether backward does not write the bottoms' diffs
    scratch = False  # whether Caffe's backward uses a bottom's diff as scratch memory if the diff is not needed

    def __init__(self, node, phase):
        self.node, self.phase, self.kept = node, phase, None
        self.opt = next((v for k, v in node.options.items() if k.endswith("_param")), {})

    def shapes(self, shapes):
        return [shapes[0]] * len(self.node.tops)

    def params(self, shapes):
        """Return (shape, kind of values) of each parameter."""
        return []


class Source(Layer):
    direct = True

    def shapes(self, shapes):
        given = self.opt["shape"]
        return [tuple(shape["dim"]) for shape in (given if isinstance(given, list) else [given])]

    def backward(self, g, x, y, p):
        return [], []


class Input(Source):
    pass


class DummyData(Source):
    pass


class MemoryData(Source):
    def shapes(self, shapes):
        size = tuple(self.opt[key] for key in ("batch_size", "channels", "height", "width"))
        return [size, (size[0], 1, 1, 1)]  # after the first run


class InnerProduct(Layer):
    direct = True

    def shapes(self, shapes):
        return [(shapes[0][0], self.opt["num_output"])]

    def params(self, shapes):
        count = self.opt["num_output"]
        bias = [((count,), "value")] if self.opt.get("bias_term", True) else []
        return [((count, math.prod(shapes[0][1:])), "weight"), *bias]

    def forward(self, x, p):
        y = x[0].reshape(len(x[0]), -1) @ p[0].T
        return [y + p[1] if len(p) > 1 else y]

    def backward(self, g, x, y, p):
        flat = x[0].reshape(len(x[0]), -1)
        return [(g[0] @ p[0]).reshape(x[0].shape)], [g[0].T @ flat, g[0].sum(0)][: len(p)]


class Convolution(Layer):
    direct = True

    def shapes(self, shapes):
        n, _, h, w = shapes[0]
        k, pad = self.opt["kernel_size"], self.opt.get("pad", 0)
        return [(n, self.opt["num_output"], h + 2 * pad - k + 1, w + 2 * pad - k + 1)]

    def params(self, shapes):
        k, count = self.opt["kernel_size"], self.opt["num_output"]
        return [((count, shapes[0][1], k, k), "weight"), ((count,), "value")]

    def _windows(self, x):
        k, pad = self.opt["kernel_size"], self.opt.get("pad", 0)
        x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        h, w = x.shape[2] - k + 1, x.shape[3] - k + 1
        return x, [(i, j, np.s_[:, :, i : i + h, j : j + w]) for i in range(k) for j in range(k)]

    def forward(self, x, p):
        wide, windows = self._windows(x[0])
        y = sum(np.einsum("nchw,oc->nohw", wide[at], p[0][:, :, i, j]) for i, j, at in windows)
        return [y + p[1][:, None, None]]

    def backward(self, g, x, y, p):
        wide, windows = self._windows(x[0])
        dx, dw, pad = np.zeros_like(wide), np.zeros_like(p[0]), self.opt.get("pad", 0)
        for i, j, at in windows:
            dx[at] += np.einsum("nohw,oc->nchw", g[0], p[0][:, :, i, j])
            dw[:, :, i, j] = np.einsum("nohw,nchw->oc", g[0], wide[at])
        inner = dx[:, :, pad : dx.shape[2] - pad, pad : dx.shape[3] - pad]
        return [inner], [dw, g[0].sum((0, 2, 3))]


class Pooling(Layer):
    @property
    def direct(self):
        return self.opt["pool"] == "AVE"

    def shapes(self, shapes):
        n, c, h, w = shapes[0]
        return [(n, c, *(-(-(size - 2) // self.opt["stride"]) + 1 for size in (h, w)))]

    def _cells(self, shape):
        stride = self.opt["stride"]
        _, _, h, w = self.shapes([shape])[0]
        for i in range(h):
            for j in range(w):
                yield i, j, np.s_[:, :, i * stride : i * stride + 2, j * stride : j * stride + 2]

    def forward(self, x, p):
        y = np.zeros(self.shapes([x[0].shape])[0])
        mask = self.kept = {}
        for i, j, at in self._cells(x[0].shape):
            window = x[0][at].reshape(*x[0].shape[:2], -1)
            if self.direct:
                y[:, :, i, j] = window.mean(-1)
                continue
            mask[i, j] = window.argmax(-1)
            y[:, :, i, j] = window.max(-1)
            gaps = y[:, :, i, j, None] - window
            if ((gaps > 0) & (gaps < KINK)).any():
                raise FragileError
        return [y]

    def backward(self, g, x, y, p):
        dx = np.zeros_like(x[0])
        for i, j, at in self._cells(x[0].shape):
            part = dx[at]
            share = np.zeros((*part.shape[:2], part[0, 0].size))
            if self.direct:
                share[...] = g[0][:, :, i, j, None] / share.shape[-1]
            else:
                np.put_along_axis(share, self.kept[i, j][..., None], g[0][:, :, i, j, None], -1)
            dx[at] += share.reshape(part.shape)
        return [dx], []


class ReLU(Layer):
    def _slope(self, p):
        return self.opt.get("negative_slope", 0)

    def forward(self, x, p):
        x = self.kept = x[0]
        if ((x != 0) & (abs(x) < KINK)).any():
            raise FragileError
        return [np.where(x > 0, x, x * self._slope(p))]

    def backward(self, g, x, y, p):
        return [np.where(self.kept > 0, g[0], g[0] * self._slope(p))], []


class PReLU(ReLU):
    def params(self, shapes):
        return [((shapes[0][1],), "value")]

    def _slope(self, p):
        return along_channels(p[0], self.kept)

    def backward(self, g, x, y, p):
        return super().backward(g, x, y, p)[0], [sum_channels(np.where(self.kept > 0, 0, g[0] * self.kept))]


class Sigmoid(Layer):
    def forward(self, x, p):
        self.kept = 1 / (1 + np.exp(-x[0]))
        return [self.kept]

    def backward(self, g, x, y, p):
        return [g[0] * self.kept * (1 - self.kept)], []


class Power(Layer):
    @property
    def direct(self):
        return self.opt["power"] == 1

    def forward(self, x, p):
        self.kept = self.opt["shift"] + self.opt["scale"] * x[0]
        return [self.kept ** self.opt["power"]]

    def backward(self, g, x, y, p):
        power = self.opt["power"]
        return [g[0] * self.opt["scale"] * power * self.kept ** (power - 1)], []


class Dropout(Layer):
    """Dropout in the phase TEST, where it is deterministic."""

    direct = True

    def forward(self, x, p):
        return [x[0].copy()]

    def backward(self, g, x, y, p):
        return [g[0].copy()], []


class Softmax(Layer):
    def forward(self, x, p):
        e = np.exp(x[0] - x[0].max(1, keepdims=True))
        self.kept = e / e.sum(1, keepdims=True)
        return [self.kept]

    def backward(self, g, x, y, p):
        return [self.kept * (g[0] - (g[0] * self.kept).sum(1, keepdims=True))], []


def along_channels(values, x):
    """One value for each channel, to be broadcast against x."""
    return values.reshape(1, -1, *[1] * (x.ndim - 2))


def sum_channels(x):
    """The sum over all axes but the channels."""
    return x.sum(tuple(axis for axis in range(x.ndim) if axis != 1))
