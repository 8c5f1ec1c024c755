"""Runs the net of a layer's reference file on the stored inputs, and compares every stored value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from caffe.net import Net
from caffe.proto import caffe_pb2
from tests.replay import assert_close, split_key, write_files

MOVES_VALUES = ("BatchReindex", "Concat", "Crop", "Filter", "Flatten", "Im2col", "Reshape", "Slice", "Split", "Tile")
"""Types whose tops contain copies of elements of their bottoms. Their values are compared exactly."""

OVERWRITTEN = ("HingeLoss",)
"""Types whose stored input diffs are no gradients: Caffe's layer keeps its margins in the bottom's diff from forward to
backward, and the recorder wrote into it between the two. test_quirks_loss.py derives the stored numbers."""


class LayerCase:
    """One layer's reference file, with its net built and loaded in the working directory `folder`."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.data = np.load(path)
        self.type = json.loads(str(self.data["meta"]))["type"]
        write_files(self.data, folder)
        (folder / "net.prototxt").write_text(str(self.data["prototxt"]))
        if "seed" in self.data:
            torch.manual_seed(int(self.data["seed"]))
        self.net = Net(folder / "net.prototxt", caffe_pb2.Phase.Value(str(self.data["phase"])))
        for key in self.keys("params/"):
            layer, index = split_key(key)
            self.net.params[layer][index].data[...] = self.data[key]
        for key in self.keys("inputs/"):
            self.net.blobs[key.removeprefix("inputs/")].data[...] = self.data[key]

    def keys(self, prefix: str) -> Iterator[str]:
        return (key for key in self.data if key.startswith(prefix))

    def json(self, key: str, default: object) -> object:
        return json.loads(str(self.data[key])) if key in self.data else default

    @property
    def has_backward(self) -> bool:
        return not self.json("forward_only", False)

    def forward(self) -> float:
        """Run forward as often as the case states; return the last loss."""
        return [self.net.forward_loss() for _ in range(int(self.data.get("forwards", 1)))][-1]

    def backward(self) -> None:
        """Run backward from the stored top diffs. The diffs of the inputs contain 7 before."""
        self.net.clear_param_diffs()
        for key in self.keys("inputs/"):
            self.net.blobs[key.removeprefix("inputs/")].diff[...] = 7
        for key in self.keys("top_diffs/"):
            self.net.blobs[key.removeprefix("top_diffs/")].diff[...] = self.data[key]
        self.net.backward()

    def check(self) -> int:
        """Run, and compare all stored arrays; return their number."""
        loss = self.forward()
        assert dict(self.net.blob_loss_weights) == {
            **dict.fromkeys(self.net.blobs, 0.0),
            **self.json("loss_weights", {}),
        }
        compared = self.check_data(loss)
        if self.has_backward:
            self.backward()
            compared += self.check_diffs()
        return compared

    def check_data(self, loss: float) -> int:
        assert_close(np.float32(loss), self.data["loss"], "loss", rtol=2e-5)
        keys = [*self.keys("outputs/"), *self.keys("params_after/")]
        for key in keys:
            kind, _, name = key.partition("/")
            if kind == "outputs":
                exact = self.type in MOVES_VALUES or name == "mask"
                tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 2e-5}
                assert_close(self.net.blobs[name].data, self.data[key], key, **tolerance)
            else:
                layer, index = split_key(key)
                assert_close(self.net.params[layer][index].data, self.data[key], key, rtol=2e-5)
        return len(keys) + 1

    def check_diffs(self) -> int:
        untouched = self.json("no_input_diff", [])
        for name in untouched:
            assert (self.net.blobs[name].diff == 7).all(), f"backward wrote into the diff of {name}"
        inputs = [] if self.type in OVERWRITTEN else self.keys("input_diffs/")
        keys = [*inputs, *self.keys("param_diffs/")]
        for key in keys:
            if key.startswith("input_diffs/"):
                got = self.net.blobs[key.removeprefix("input_diffs/")].diff
            else:
                layer, index = split_key(key)
                got = self.net.params[layer][index].diff
            assert_close(got, self.data[key], key, rtol=2e-5)
        return len(keys) + len(untouched)
