"""The model of a net: every layer reads copies and writes to storages."""

from __future__ import annotations

import numpy as np

from tests.ownership.graphs import with_splits
from tests.ownership.layers_more import LAYERS
from tests.ownership.memory import Blob, Storage, rounding


class Step:
    """A layer of the net, with the state that the model keeps of its last run."""

    def __init__(self, node, phase):
        self.node = node
        self.layer = LAYERS[node.type](node, phase)
        self.bottoms, self.tops, self.params = [], [], []
        self.backward, self.needs, self.trains = False, [], []
        self.seen = None  # the versions of storages after the last run layer by layer

    def versions(self):
        return [blob.data.storage.version for blob in (*self.bottoms, *self.tops, *self.params)]


class Net:
    """A net of the model. `real`: with the quirks of the original, see `_quirks`."""

    def __init__(self, graph, phase, real=False):
        self.graph, self.phase, self.real = graph, phase, real
        self.steps = [Step(node, phase) for node in with_splits(graph.nodes)]
        self.blobs, self.params = {}, {}
        self.arrays, self.row = None, 0  # of a MemoryData layer
        self.rewritten = {step.node.tops[0] for step in self.steps if step.node.in_place}
        named = {}
        for step in self.steps:
            self._build(step, named)
        self.mark_backward(statistics=real)
        for step in self.steps:
            self._share(step)
        self.index = {step.node.name: i for i, step in enumerate(self.steps)}
        made = {name for step in self.steps for name in step.node.tops}
        unread = {}  # in the order of the layers: a top is an output until a layer reads it
        for step in self.steps:
            for name in step.node.bottoms:
                unread.pop(name, None)
            unread.update(dict.fromkeys(step.node.tops))
        self.outputs = sorted(name for name in made if name in unread)
        self.sources = [name for step in self.steps if not step.bottoms for name in step.node.tops]
        self.inputs = [name for step in self.steps if step.node.type == "Input" for name in step.node.tops]
        self.forget_modes()
        self.keep_diffs = self.debug = False

    def forget_modes(self):
        self.optimized = self.slim = None  # the names of the blobs to keep

    def _build(self, step, named):
        node = step.node
        step.bottoms = [self.blobs[name] for name in node.bottoms]
        shapes = [blob.shape for blob in step.bottoms]
        for name, shape in zip(node.tops, step.layer.shapes(shapes)):
            if name not in self.blobs:
                kind = step.bottoms[0].kind if node.type == "Split" else self.graph.kinds.get(name, "value")
                self.blobs[name] = Blob(shape, kind)
            step.tops.append(self.blobs[name])
        if step.layer.loss:
            step.tops[0].diff.storage.put(1)
        for top in step.tops:
            top.fresh = top.fresh or node.aliases or node.type == "DummyData"
        if node.type == "DummyData":
            step.tops[0].data.storage.put(np.full(step.tops[0].shape, step.layer.opt["data_filler"]["value"]))
        specs = iter(node.params)
        for shape, kind in step.layer.params(shapes):
            spec = next(specs, {})
            blob = named.get(spec.get("name")) or Blob(shape, kind)
            if "name" in spec:
                named[spec["name"]] = blob
            blob.lr_mult = spec.get("lr_mult", 1) if step.layer.trained else 0
            step.params.append(blob)
        if step.params:
            self.params[node.name] = step.params

    def _share(self, step):
        """The top of a layer that only changes the shape shares the memory of the bottom.

        If a layer runs in place on such a top, the data are not shared, so that other readers of the bottom get the
        right values.
        """
        if not step.node.aliases:
            return
        (bottom,) = step.bottoms
        for name, top in zip(step.node.tops, step.tops):
            if name not in self.rewritten:
                top.data.share(bottom.data)
            if step.node.type == "Flatten" and self.real and not step.backward:
                continue  # after a backward run, the diffs share memory
            if step.node.type != "Split":
                top.diff.share(bottom.diff)

    @property
    def marks(self):
        """Return which layers run backward, and to which bottoms."""
        return [(step.backward, step.needs) for step in self.steps]

    def mark_backward(self, statistics=False):
        """Find which layers run backward, and to which bottoms, by Caffe's rules.

        `statistics`: whether a BatchNorm needs gradients for its parameters, as in the original.
        """
        wanting = set()
        for step in self.steps:
            step.needs = [name in wanting for name in step.node.bottoms]
            step.trains = [blob.lr_mult != 0 for blob in step.params]
            wants = statistics and step.node.type == "BatchNorm"
            step.backward = any(step.needs) or any(step.trains) or wants
            if step.backward:
                wanting.update(step.node.tops)
        under_loss, unwanted = set(), set()
        for step in reversed(self.steps):
            leads = step.layer.loss or any(name in under_loss for name in step.node.tops)
            if step.backward and all(name in unwanted for name in step.node.tops):
                step.backward, step.needs = False, [False] * len(step.needs)
            step.backward = step.backward and leads
            if not leads:
                step.needs = [False] * len(step.needs)
            under_loss.update(step.node.bottoms if leads else ())
            unwanted.update(name for name, need in zip(step.node.bottoms, step.needs) if not need)
        if self.graph.force_backward:
            for step in self.steps:
                step.backward = True
                step.needs = [need or i not in step.layer.exempt for i, need in enumerate(step.needs)]
                step.trains = [step.layer.trained] * len(step.params)

    # -- questions -------------------------------------------------------------------------------------------------

    @property
    def learnable(self):
        """Return each parameter once."""
        return list({id(blob): blob for blobs in self.params.values() for blob in blobs}.values())

    def ends(self):
        """Return the tops that no layer reads."""
        return [self.blobs[name] for name in self.outputs]

    def can_run(self, first, last):
        """Whether the bottoms of the layers have values, or get them during the run."""
        made = {}
        for step in self.steps[first : last + 1]:
            if step.node.type == "MemoryData" and self.arrays is None:
                return False
            given = step.tops if step.node.type == "Input" else step.bottoms
            if not all(
                id(b.data.storage) in made or (b.data.storage.known and not (b.absent or b.fresh)) for b in given
            ):
                return False
            if not all(blob.data.storage.known for blob in step.params):
                return False
            made.update({id(top.data.storage): 1 for top in step.tops})
        return True

    def can_run_back(self, first, last, known=()):
        """Whether Caffe's formulas and autograd on the recorded history give the same gradients.

        `known`: ids of storages of diffs that the user gives.
        """
        known = dict.fromkeys(known, True)
        for step in self.steps[last : first + 1][::-1]:
            if not step.backward:
                continue
            if step.seen is None or (not step.layer.direct and step.seen != step.versions()):
                return False
            if not all(known.get(id(top.diff.storage), top.diff.storage.known) for top in step.tops):
                return False
            if any(not blob.data.storage.known or blob.absent for blob in (*step.bottoms, *step.tops)):
                return False
            needed = [blob for blob, need in zip(step.bottoms, step.needs) if need]
            known.update((id(blob.diff.storage), not step.layer.silent) for blob in needed)
        return True

    def can_fuse_back(self):
        """Whether no diff of an output was written: a run of the whole net starts from the loss weights."""
        losses = {id(step.tops[0]) for step in self.steps if step.layer.loss}
        return all(
            blob.diff.storage.known and (blob.diff.array == (id(blob) in losses)).all() for blob in self.ends()
        ) and not any(step.layer.silent and any(step.needs) for step in self.steps)

    # -- runs ------------------------------------------------------------------------------------------------------

    def forward(self, first=0, last=None):
        """Run layer by layer. A layer in place changes values that others have read, unless this run computed its
        bottom.
        """
        made = set()
        for step in self.steps[first : None if last is None else last + 1]:
            storages = [top.data.storage for top in step.tops]
            for storage in storages:
                storage.runs += step.node.in_place and id(storage) not in made
            made.update(map(id, storages))
            self._forward(step)
            step.seen = step.versions()

    def _forward(self, step):
        for top in step.tops:
            top.absent = top.fresh = False
        if step.node.type == "MemoryData":
            n = len(step.tops[1].data.array)
            values = [array[self.row : self.row + n] for array in self.arrays]
            self.row = (self.row + n) % len(self.arrays[0])
        elif step.node.type in ("Input", "DummyData"):
            return
        else:
            params = [blob.data.array.astype(np.float64) for blob in step.params]
            values = step.layer.forward([blob.data.array.astype(np.float64) for blob in step.bottoms], params)
            if step.node.type == "BatchNorm" and self.phase == "TRAIN":
                for blob, value in zip(step.params, params):
                    blob.data.storage.put(value)
        for top, value in zip(step.tops, values):
            shared = any(top.data.storage is blob.data.storage for blob in step.bottoms)
            if step.node.in_place or not shared:
                top.data.storage.put(rounding(value))
                top.data.storage.runs += not step.node.in_place

    def backward(self, first=None, last=0):
        """From layer `first` down to `last`."""
        for step in self.steps[last : None if first is None else first + 1][::-1]:
            if step.backward:
                self._backward(step)
                if self.real:
                    self._quirks(step)

    def _backward(self, step):
        wide = [
            [blob.diff.array.astype(np.float64) for blob in step.tops],
            *(
                [blob.data.array.astype(np.float64) for blob in blobs]
                for blobs in (step.bottoms, step.tops, step.params)
            ),
        ]
        diffs, grads = step.layer.backward(*wide)
        for blob, diff, need in zip(step.bottoms, diffs, step.needs):
            shared = any(blob.diff.storage is top.diff.storage for top in step.tops)
            if need and diff is None:
                blob.diff.storage.known = False
            elif need and (step.node.in_place or not shared):
                blob.diff.storage.put(rounding(diff))
        for blob, grad, trains in zip(step.params, grads, step.trains):
            if trains:
                blob.diff.array[...] += rounding(grad)

    @staticmethod
    def _quirks(step):
        """Apply the writes of the original's backward to diffs that are not requested."""
        if step.layer.scratch and not any(step.needs):
            step.bottoms[0].diff.storage.known = False
        if step.layer.scratch and step.node.in_place:
            step.seen = None  # the values for backward are overwritten, so only one of the gradients is right

    def run_whole(self, wanted, held):
        """Run the whole net forward: compute all blobs, or those `wanted` and those with arrays of the user."""
        self.forward()
        for step in self.steps:
            step.seen = None
        if wanted is not None:
            needed = {id(self.blobs[name]) for name in (*wanted, *self.sources)} | held
            for blob in self.blobs.values():
                blob.absent = id(blob) not in needed

    def forward_backward(self, held):
        """Run a training pass, of the whole net unless the user wants to see more; return the loss."""
        if self.keep_diffs or self.debug:
            self.forward()
            self.backward()
            return self.loss()
        self.run_whole(None if self.slim is None else {*self.slim, *self.outputs}, held)
        self.backward()
        for blob in (blob for step in self.steps for blob in step.bottoms):
            blob.diff.storage.known = False
        return self.loss()

    def loss(self):
        return sum(float(step.tops[0].data.array * step.tops[0].diff.array) for step in self.steps if step.layer.loss)

    def clear(self):
        for blob in self.learnable:
            blob.diff.storage.put(0)

    # -- shapes and weights ----------------------------------------------------------------------------------------

    def reshape(self, batch, write):
        """Change the batch size of the inputs and fill them with `write(blob)`; then reshape the other blobs."""
        for step in self.steps:
            step.seen = None
            given = [blob.shape for blob in step.bottoms]
            inputs = [(batch, *blob.shape[1:]) for blob in step.tops]
            shapes = inputs if step.node.type == "Input" else step.layer.shapes(given) if given else []
            for blob, shape in zip(step.tops, shapes):
                if blob.shape != tuple(shape):
                    for half in (blob.data, blob.diff):
                        half.shape, half.storage = tuple(shape), Storage(np.zeros(shape))
                        half.storage.known = False
                    blob.fresh = step.node.aliases
            self._share(step)
            if step.node.type == "Input":
                for blob in step.tops:
                    blob.data.storage.put(write(blob))

    def share_with(self, other):
        """Share the data of the parameters with another net, but not the diffs."""
        for name, theirs in other.params.items():
            for blob, owner in zip(self.params.get(name, []), theirs):
                blob.data.share(owner.data)

    def weights(self):
        return {name: [blob.data.array.copy() for blob in blobs] for name, blobs in self.params.items()}

    def load(self, weights):
        for name, arrays in weights.items():
            for blob, array in zip(self.params.get(name, []), arrays):
                blob.data.storage.put(array)
                blob.data.storage.writes += 1
