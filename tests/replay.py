"""Replays the scripts of the reference files: builds a net, runs the recorded steps, and compares the values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from caffe.net import Net
from caffe.proto import caffe_pb2


def assert_close(got: np.ndarray, stored: np.ndarray, what: str, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """Assert that `|got - stored| <= rtol * max|stored| + atol`, the tolerance of the reference files."""
    got, stored = np.asarray(got), np.asarray(stored)
    assert got.shape == stored.shape, f"{what}: shape {got.shape}, expected {stored.shape}"
    if stored.size:
        worst = np.abs(got.astype(np.float64) - stored).max()
        bound = rtol * np.abs(stored).max() + atol
        assert worst <= bound, f"{what}: differs by {worst:.3g}, allowed {bound:.3g}"


def write_files(case: np.lib.npyio.NpzFile, folder: Path) -> None:
    """Write the files that a case contains to `folder`."""
    for key in case:
        if key.startswith("files/"):
            path = folder / key.removeprefix("files/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(case[key].tobytes())


def split_key(key: str) -> tuple[str, int]:
    """`params/a/b/1` -> ("a/b", 1): a layer name can hold slashes itself."""
    layer, _, index = key.split("/", 1)[1].rpartition("/")
    return layer, int(index)


def structure(net: Net) -> dict:
    """Return the structure of a net in the form of the reference files."""
    return {
        "layer_names": net.layer_names,
        "layer_types": [layer.type for layer in net.layers],
        "blob_names": list(net.blobs),
        "inputs": net.inputs,
        "outputs": net.outputs,
        "top_names": dict(net.top_names),
        "bottom_names": dict(net.bottom_names),
        "blob_shapes": {name: list(blob.shape) for name, blob in net.blobs.items()},
        "param_shapes": {name: [list(blob.shape) for blob in blobs] for name, blobs in net.params.items()},
        "blob_loss_weights": dict(net.blob_loss_weights),
    }


class Replay:
    """A case that is replayed in the working directory `folder`."""

    def __init__(self, case: np.lib.npyio.NpzFile, folder: Path) -> None:
        self.case, self.folder = case, folder
        self.net: Net = None  # type: ignore[assignment]
        self.loss = 0.0
        self.h5: dict[str, np.ndarray] = {}
        self.compared = 0

    def run(self) -> int:
        """Run every step; return the number of compared values."""
        (self.folder / "net.prototxt").write_text(str(self.case["prototxt"]))
        for number, step in enumerate(json.loads(str(self.case["script"]))):
            getattr(self, "do_" + step.pop("op"))(**step)
            self.compare(f"expect/{number:02d}/")
        self.close()
        return self.compared

    def compare(self, prefix: str) -> None:
        for key in self.case:
            if not key.startswith(prefix):
                continue
            self.compared += 1
            kind, _, name = key.removeprefix(prefix).partition("/")
            stored = self.case[key]
            if kind == "structure":
                assert structure(self.net) == json.loads(str(stored))
            elif kind in ("data", "diff"):
                assert_close(getattr(self.net.blobs[name], kind), stored, key)
            elif kind in ("param", "param_diff"):
                layer, index = name.rpartition("/")[::2]
                blob = self.net.params[layer][int(index)]
                assert_close(blob.data if kind == "param" else blob.diff, stored, key)
            elif kind == "h5":
                assert_close(self.h5[name], stored, key)
            else:
                assert kind == "loss", key
                assert_close(np.float32(self.loss), stored, key)

    def close(self) -> None:
        if self.net is not None:
            self.net.close()

    # -- steps, named after their "op" -----------------------------------------------------------------------------

    def do_net(self, phase: str, level: int | None = None, stages: list[str] | None = None, weights=None) -> None:
        phases = {"TRAIN": caffe_pb2.TRAIN, "TEST": caffe_pb2.TEST}
        self.net = Net(self.folder / "net.prototxt", phases[phase], level=level, stages=stages, weights=weights)

    def do_structure(self) -> None:
        """Do nothing; `compare` uses the recorded values."""

    def do_record(self, **wanted: object) -> None:
        """Do nothing, like `do_structure`."""

    def do_load_params(self, group: str) -> None:
        for key in self.case:
            if key.startswith(group + "/"):
                layer, index = split_key(key)
                self.net.params[layer][index].data[...] = self.case[key]

    def do_set(self, blob: str, array: str) -> None:
        self.net.blobs[blob].data[...] = self.case[array]

    def do_set_diff(self, blob: str, array: str) -> None:
        self.net.blobs[blob].diff[...] = self.case[array]

    def do_set_param(self, layer: str, index: int, array: str) -> None:
        self.net.params[layer][index].data[...] = self.case[array]

    def do_fill_all(self, which: str, value: float) -> None:
        for blob in self.net.blobs.values():
            getattr(blob, which)[...] = value

    def do_forward(self, start: str | None = None, end: str | None = None) -> None:
        self.net.forward(start=start, end=end)

    def do_forward_loss(self) -> None:
        self.loss = self.net.forward_loss()

    def do_backward(self, start: str | None = None, end: str | None = None) -> None:
        self.net.backward(start=start, end=end)

    def do_clear_param_diffs(self) -> None:
        self.net.clear_param_diffs()

    def do_reshape_blob(self, blob: str, shape: list[int]) -> None:
        self.net.blobs[blob].reshape(*shape)

    def do_reshape(self) -> None:
        self.net.reshape()

    def do_copy_from(self, file: str) -> None:
        self.net.copy_from(self.folder / file)

    def do_set_input_arrays(self, data: str, labels: str) -> None:
        self.net.set_input_arrays(self.case[data], self.case[labels])

    def do_read_h5(self, file: str) -> None:
        import h5py

        self.net.close()
        with h5py.File(self.folder / file) as h5:
            self.h5 = {name: h5[name][...] for name in h5}
