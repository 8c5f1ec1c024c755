"""More layers in numpy: layers with channels or several blobs, losses, layers that change shapes, and Python layers."""

from __future__ import annotations

import math

import numpy as np

from tests.ownership import layers
from tests.ownership.layers import KINK, FragileError, Layer, along_channels, sum_channels


class Scale(Layer):
    scratch = True

    @property
    def direct(self):
        return not self.node.in_place

    def params(self, shapes):
        count = (shapes[0][1],)
        return [(count, "weight"), *([(count, "value")] if self.opt.get("bias_term") else [])]

    def forward(self, x, p):
        self.kept = x[0]
        y = x[0] * along_channels(p[0], x[0])
        return [y + along_channels(p[1], y) if len(p) > 1 else y]

    def backward(self, g, x, y, p):
        read = x[0] if self.direct else self.kept
        return [g[0] * along_channels(p[0], g[0])], [sum_channels(g[0] * read), sum_channels(g[0])][: len(p)]


class Bias(Layer):
    direct = True

    def params(self, shapes):
        return [((shapes[0][1],), "value")]

    def forward(self, x, p):
        return [x[0] + along_channels(p[0], x[0])]

    def backward(self, g, x, y, p):
        return [g[0].copy()], [sum_channels(g[0])]


class BatchNorm(Layer):
    """`forward` also changes the parameters, in place, as Caffe's does in TRAIN."""

    trained, scratch = False, True
    eps = 0.125

    def params(self, shapes):
        count = (shapes[0][1],)
        return [(count, "value"), (count, "positive"), ((1,), "positive")]

    def forward(self, x, p):
        x, (means, variances, factor) = x[0], p
        if self.phase == "TEST":
            mean, variance = means / factor, variances / factor
        else:
            m = x.size / x.shape[1]
            mean = sum_channels(x) / m
            variance = sum_channels((x - along_channels(mean, x)) ** 2) / m
            factor[...] = factor * 0.75 + 1
            means[...] = means * 0.75 + mean
            variances[...] = variances * 0.75 + variance * m / (m - 1)
        deviation = along_channels(np.sqrt(variance + self.eps), x)
        normed = (x - along_channels(mean, x)) / deviation
        self.kept = normed, deviation
        return [normed]

    def backward(self, g, x, y, p):
        normed, deviation = self.kept
        g = g[0]
        if self.phase == "TRAIN":
            m = g.size / g.shape[1]
            g = g - along_channels(sum_channels(g), g) / m - normed * along_channels(sum_channels(g * normed), g) / m
        return [g / deviation], []


class Eltwise(Layer):
    @property
    def direct(self):
        return self.opt["operation"] != "MAX"

    def forward(self, x, p):
        operation = self.opt["operation"]
        if operation == "SUM":
            return [sum(c * each for c, each in zip(self.opt["coeff"], x))]
        if operation == "PROD":
            return [math.prod(x)]
        gap = abs(x[0] - x[1])
        if ((gap > 0) & (gap < KINK)).any():
            raise FragileError
        self.kept = x[0] > x[1]
        return [np.maximum(x[0], x[1])]

    def backward(self, g, x, y, p):
        operation = self.opt["operation"]
        if operation == "SUM":
            return [c * g[0] for c in self.opt["coeff"]], []
        if operation == "PROD":
            return [g[0] * math.prod(x[:i] + x[i + 1 :]) for i in range(len(x))], []
        return [np.where(self.kept, g[0], 0), np.where(self.kept, 0, g[0])], []


class Concat(Layer):
    direct = True

    def shapes(self, shapes):
        return [(shapes[0][0], sum(shape[1] for shape in shapes), *shapes[0][2:])]

    def forward(self, x, p):
        return [np.concatenate(x, 1)]

    def backward(self, g, x, y, p):
        return np.split(g[0], np.cumsum([each.shape[1] for each in x])[:-1], 1), []


class Slice(Layer):
    direct = True

    def shapes(self, shapes):
        n, c, *rest = shapes[0]
        points = [0, *self._points(), c]
        return [(n, end - start, *rest) for start, end in zip(points[:-1], points[1:])]  # noqa: RUF007 - not in Python 3.8

    def _points(self):
        return self.opt.get("slice_point", [])

    def forward(self, x, p):
        return np.split(x[0], self._points(), 1)

    def backward(self, g, x, y, p):
        return [np.concatenate(g, 1)], []


class Flatten(Layer):
    direct = True

    def shapes(self, shapes):
        return [(shapes[0][0], math.prod(shapes[0][1:]))]

    def forward(self, x, p):
        return [x[0].reshape(self.shapes([x[0].shape])[0])]

    def backward(self, g, x, y, p):
        return [g[0].reshape(x[0].shape)], []


class Reshape(Flatten):
    """Reshape with shape { dim: 0 dim: K dim: -1 }."""

    def shapes(self, shapes):
        n, k = shapes[0][0], self.opt["shape"]["dim"][1]
        return [(n, k, math.prod(shapes[0][1:]) // k)]


class Split(Layer):
    direct = True

    def forward(self, x, p):
        return [x[0]] * len(self.node.tops)

    def backward(self, g, x, y, p):
        return [sum(g)], []


class EuclideanLoss(Layer):
    loss = True

    def shapes(self, shapes):
        return [()]

    def forward(self, x, p):
        self.kept = x[0] - x[1]
        return [(self.kept**2).sum() / 2 / len(x[0])]

    def backward(self, g, x, y, p):
        step = g[0] * self.kept / len(self.kept)
        return [step, -step], []


class SoftmaxWithLoss(Layer):
    loss = True
    exempt = (1,)

    def shapes(self, shapes):
        return [()]

    def forward(self, x, p):
        e = np.exp(x[0] - x[0].max(1, keepdims=True))
        chosen = np.eye(x[0].shape[1])[x[1].astype(int).ravel()]
        probability = e / e.sum(1, keepdims=True)
        self.kept = probability, chosen
        return [-np.log(np.maximum((probability * chosen).sum(1), np.finfo(np.float32).tiny)).sum() / len(x[0])]

    def backward(self, g, x, y, p):
        probability, chosen = self.kept
        return [g[0] * (probability - chosen) / len(x[0]), None], []


class Python(Layer):
    """The layers of tests.ownership.guests: a factor, and whether they have a backward."""

    direct = True

    @property
    def silent(self):
        return self.opt["layer"] == "NoBackward"

    @property
    def factor(self):
        return {"KeepBottom": 2, "KeepTop": 3, "InPlace": 0.5, "NoBackward": -1}[self.opt["layer"]]

    def forward(self, x, p):
        return [x[0] * self.factor]

    def backward(self, g, x, y, p):
        """Return the diffs of the bottoms; None for a diff that is not checked."""
        return [None if self.silent else g[0] * self.factor], []


LAYERS = {
    name: value
    for name, value in {**vars(layers), **globals()}.items()
    if isinstance(value, type) and issubclass(value, Layer)
}
