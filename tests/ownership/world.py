"""The state of a sequence in the model: nets, an optional solver, arrays that the user keeps, and files."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.ownership import model
from tests.ownership.graphs import Graph
from tests.ownership.memory import View, rounding


def values(seed, shape):
    """Return random numbers from -1 to 1."""
    k = np.arange(1, math.prod(shape) + 1)
    return np.sin((0.7 + 0.01 * seed) * k * k).astype(np.float32).reshape(shape)


def labels(seed, shape, classes):
    return np.floor((values(seed, shape) + 1) / 2.001 * classes).astype(np.float32)


def drawn(kind, seed, shape):
    """Return random values that are valid for a blob."""
    if kind.startswith("label"):
        return labels(seed, shape, int(kind.split()[1]))
    return abs(values(seed, shape)) + 0.5 if kind == "positive" else values(seed, shape)


def drawn_code(kind, seed, shape):
    """Return the call of `drawn` in a script."""
    if kind.startswith("label"):
        return f"labels({seed}, {shape}, {kind.split()[1]})"
    return f"abs(values({seed}, {shape})) + 0.5" if kind == "positive" else f"values({seed}, {shape})"


@dataclass
class Start:
    """The start of a sequence. If `solver` has fields, a solver is created, and `net` and `other` are its nets."""

    graph: Graph
    phase: str = "TEST"
    pair: bool = False  # whether there is a second net, `other`, in TEST
    solver: dict[str, Any] | None = None
    first: str = "write"  # how the initial weights are set: "write" or "load"
    seed: int = 0
    rows: int = 2  # size of the arrays of MemoryData, in batches
    extra: dict[str, Any] = field(default_factory=dict)


class Solver:
    """SGD with momentum, as in Caffe."""

    def __init__(self, net, options):
        self.net, self.options, self.iter = net, options, 0
        self.history = [np.zeros(blob.shape) for blob in net.learnable]

    def step(self, held):
        self.net.debug = False
        self.net.clear()
        for _ in range(self.options.get("iter_size", 1)):
            self.net.forward_backward(held)
        for blob, history in zip(self.net.learnable, self.history):
            rate = self.options["base_lr"] * blob.lr_mult
            gradient = blob.diff.array.astype(np.float64) / self.options.get("iter_size", 1)
            gradient = gradient + self.options.get("weight_decay", 0) * blob.data.array
            history[...] = self.options.get("momentum", 0) * history + rate * gradient
            blob.diff.storage.put(history)
            blob.data.storage.put(rounding(blob.data.array.astype(np.float64) - history))
            blob.data.storage.writes += 1
        self.iter += 1


class World:
    """The state of the model. `real`: the original Caffe always runs layer by layer, so no blob is ever absent."""

    def __init__(self, start, real=False):
        self.start, self.real = start, real
        self.nets = {"net": model.Net(start.graph, start.phase, real)}
        if start.pair:
            self.nets["other"] = model.Net(start.graph, "TEST", real)
        self.solver = Solver(self.nets["net"], start.solver) if start.solver else None
        self.views, self.files, self.states = {}, {}, {}
        self.focus = []  # places that are chosen repeatedly
        self.user = {}  # the user's arrays for MemoryData, by name
        for name, net in self.nets.items():
            self.fill(name, net)

    def fill(self, name, net):
        """Set the initial weights, inputs and arrays."""
        loads = self.start.first == "load" and net.params
        for file in ["second.caffemodel", "first.caffemodel"] if loads else [""]:
            for seed, blob, _ in self.first_weights(name, net, file):
                blob.data.storage.put(drawn(blob.kind, seed, blob.shape))
            if loads:
                self.files[file] = net.weights()
        for seed, blob, _ in self.first_inputs(net):
            blob.data.storage.put(drawn(blob.kind, seed, blob.shape))
        if self.memory(net):
            self.set_arrays(name, self.start.seed)
            self.run(net)
        if self.settles(net):
            net.forward()
            net.backward()
            net.clear()

    def settles(self, net):
        """Whether the net must run once, because the original's Flatten shares its diff only after the first backward
        run.
        """
        return self.real and any(step.node.type == "Flatten" and step.backward for step in net.steps)

    def first_weights(self, name, net, file=""):
        """Yield (seed, blob, place) of each parameter."""
        seed = self.start.seed + 100 * (name == "other") + 500 * (file == "second.caffemodel")
        for layer, blobs in net.params.items():
            for index, blob in enumerate(blobs):
                seed += 1
                yield seed, blob, (name, "param", layer, index)

    def first_inputs(self, net):
        return [(self.start.seed + 200 + i, net.blobs[name], name) for i, name in enumerate(net.inputs)]

    # -- queries ---------------------------------------------------------------------------------------------------

    def blob(self, place):
        net, kind, name, index = place
        if net not in self.nets:
            return None
        found = self.nets[net].blobs.get(name) if kind == "blob" else self.nets[net].params.get(name)
        return found[index] if kind == "param" and found else found

    def half(self, place, which):
        blob = self.blob(place)
        return blob.data if which == "data" else blob.diff

    def keep(self, name, place, which, part):
        self.views[name] = View(self.blob(place), which, part)

    @property
    def held(self):
        """Return the ids of the blobs of whose data the user keeps an array."""
        return {id(view.blob) for view in self.views.values() if view.current}

    @staticmethod
    def memory(net):
        return next((step for step in net.steps if step.node.type == "MemoryData"), None)

    def arrays_of(self, name, seed):
        """Return (shapes, seeds) of the user's arrays for a net with MemoryData."""
        data, label = self.memory(self.nets[name]).tops
        count = len(data.data.array) * self.start.rows
        return [((count, *data.shape[1:]), data.kind, seed + 301), ((count, 1, 1, 1), label.kind, seed + 302)]

    def set_arrays(self, name, seed):
        net = self.nets[name]
        net.arrays = [drawn(kind, seed, shape) for shape, kind, seed in self.arrays_of(name, seed)]
        net.row = 0
        self.user[f"{name}_data"], self.user[f"{name}_label"] = net.arrays

    def run(self, net):
        """Run the whole net forward."""
        if net.optimized is not None and not net.debug and not self.real:
            net.run_whole({*net.optimized, *net.outputs}, self.held)
        else:
            net.forward()
