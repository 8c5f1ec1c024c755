"""The input of an examination: a solver, its net as written and as built, and the file position of each field."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from caffe.doctor.changes import Change
from caffe.doctor.view import View
from caffe.errors import FileError, ProtoError
from caffe.proto import caffe_pb2, files, upgrade, weights
from caffe.proto.source import Entry, Source
from caffe.solver import get_solver

__all__ = ["Case", "close", "quiet"]


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress log lines below errors, because the doctor's trial runs are not the user's runs."""
    logger = logging.getLogger("caffe")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


class Case:
    """A solver prototxt and the files that it names.

    `param` is the SolverParameter without its net, `net` the NetParameter of the train net with the layers of all
    phases. `train` and `test` hold the layers of one phase. `start` names the weight files to fine-tune from. Raises
    FileError, ProtoError, SolverError and NetError for files that cannot be read.
    """

    def __init__(self, path: str | Path, start: str = "") -> None:
        self.path = str(path)
        self.param = upgrade.read_solver(path)
        if start:
            self.param.ClearField("weights")
            self.param.weights.append(start)
        self.net_path = self.param.train_net or self.param.net
        self.net = upgrade.read_net(self.net_path) if self.net_path else self._own_net()
        self.apart = [upgrade.read_net(name) for name in self.param.test_net] + list(self.param.test_net_param)
        for name in ("net", "train_net", "test_net", "net_param", "train_net_param", "test_net_param"):
            self.param.ClearField(name)
        self.tests = bool(self.param.test_iter)
        with quiet():
            self.train, self.test = self._views(self.net)

    def _views(self, net: Any) -> tuple[View, View]:
        state = self.param.test_state[0] if self.param.test_state else caffe_pb2.NetState()
        test = View(self.apart[0] if self.apart else net, caffe_pb2.TEST, state)
        return View(net, caffe_pb2.TRAIN, self.param.train_state), test

    def views(self, change: Change | None) -> tuple[View, View]:
        """Return the layers of TRAIN and of TEST after a change."""
        if change is None:
            return self.train, self.test
        net = caffe_pb2.NetParameter()
        net.CopyFrom(self.net)
        change.apply(caffe_pb2.SolverParameter(), net)
        return self._views(net)

    def _own_net(self) -> Any:
        field = "train_net_param" if self.param.HasField("train_net_param") else "net_param"
        net = caffe_pb2.NetParameter()
        net.CopyFrom(getattr(self.param, field))
        upgrade.upgrade_net(net, self.path)
        return net

    @property
    def loaded(self) -> bool:
        """Whether training starts from weights in a file."""
        return bool(self.param.weights)

    @cached_property
    def stored(self) -> dict[str, list[tuple[int, ...]]]:
        """The shapes of the blobs in the weight files, by layer, without layers that have no blobs."""
        found: dict[str, list[tuple[int, ...]]] = {}
        for name in (each.strip() for names in self.param.weights for each in names.split(",")):
            with weights.opened(name) as layers:
                found |= {key: [array.shape for array in arrays] for key, arrays in layers.items() if arrays}
        return found

    # -- as text ---------------------------------------------------------------------------------------------------

    @cached_property
    def solver_source(self) -> Source:
        return Source(self.path)

    @cached_property
    def net_source(self) -> Source | None:
        return Source(self.net_path) if self.net_path else None

    def place(self, layer: int | None, path: str = "") -> str:
        """Return `file:line` of a field of the solver (None) or of a layer; of the layer itself if the field is not
        set.
        """
        source = self.solver_source if layer is None else self.net_source
        if source is None:
            return self.path
        root = None if layer is None else self._block(source, layer)
        if layer is not None and root is None:
            return str(source.path)
        entry = source.find(root, path) if path else None
        while entry is None and "." in path:
            path = path.rpartition(".")[0]
            entry = source.find(root, path)
        at = entry or root
        return f"{source.path}:{source.line(at.start)}" if at else str(source.path)

    def _block(self, source: Source, layer: int) -> Entry | None:
        """Return the block of a layer: of the blocks with its name the one whose index is nearest, because upgrades add
        layers.
        """
        name = self.net.layer[layer].name
        blocks = [pair for pair in enumerate(source.layers()) if source.string(pair[1], "name") == name]
        return min(blocks, key=lambda pair: abs(pair[0] - layer))[1] if blocks else None

    def check_editable(self) -> None:
        """Raise a ProtoError for files whose text cannot be edited: their layers must be blocks in the current
        format.
        """
        way = "write the net to a separate file, as `caffe upgrade_net_proto_text` does"
        if self.net_source is None:
            raise ProtoError(f"{self.path}: the net is part of the solver file, which cannot be edited: {way}")
        blocks = self.net_source.layers()
        if len(blocks) != len(self.net.layer) or any(block.name == "layers" for block in blocks):
            raise ProtoError(f"{self.net_path}: is in an old format, which cannot be edited: {way}")

    def write(self, change: Change, folder: str | Path) -> list[Path]:
        """Write the changed solver and net to a folder, which is created if needed; returns their paths.

        Comments are kept, and the solver names the new net. Raises ProtoError for files that cannot be edited, and
        FileError.
        """
        self.check_editable()
        solver, net = sources = Source(self.path), Source(self.net_path)
        paths = [Path(folder) / Path(source.path).name for source in sources]
        present = {Path(source.path).resolve() for source in sources}
        if paths[0] == paths[1] or present & {path.resolve() for path in paths}:
            raise FileError(f"{folder}: the changed files would replace the present ones; give another folder")
        change.write(solver, net)
        field = next(name for name in ("train_net", "net") if solver.find(None, name) is not None)
        solver.set(None, field, f'"{paths[1]}"')
        Path(folder).mkdir(parents=True, exist_ok=True)
        for path, source in zip(paths, sources, strict=True):
            with files.atomic(path) as file:
                file.write(source.text.encode())
        return paths

    # -- as a run --------------------------------------------------------------------------------------------------

    def parameters(self, change: Change | None = None, seed: int | None = None) -> Any:
        """Return the SolverParameter of a trial: changed, and without displays, tests, snapshots and the stop at
        NaN.
        """
        param, net = caffe_pb2.SolverParameter(), caffe_pb2.NetParameter()
        param.CopyFrom(self.param)
        net.CopyFrom(self.net)
        if change is not None:
            change.apply(param, net)
        if self.apart:
            param.train_net_param.CopyFrom(net)
            for test in self.apart:
                param.test_net_param.add().CopyFrom(test)
        else:
            param.net_param.CopyFrom(net)
        param.display = param.snapshot = 0
        param.snapshot_after_train = param.debug_info = False
        param.snapshot_format = param.BINARYPROTO
        param.nan_patience = 0
        if param.test_iter:
            param.test_interval = 1 << 30
        param.test_initialization = False
        if seed is not None:
            param.random_seed = seed
        return param

    def solver(self, change: Change | None = None, seed: int | None = None) -> Any:
        """Create a solver for a trial, in the current mode. The caller closes its nets."""
        with quiet():
            return get_solver(self.parameters(change, seed), source=None)


def close(solver: Any) -> None:
    """Close the nets of a solver."""
    for net in solver.nets:
        net.close()
