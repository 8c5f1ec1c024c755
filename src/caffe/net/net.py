"""Net: a graph of layers that runs layer by layer, with every blob and gradient in sight."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caffe import log, mode
from caffe.blob import Blob
from caffe.errors import CaffeError, NetError
from caffe.layers.base import Layer, Source
from caffe.names import Named, Results, unknown
from caffe.net import batches, store
from caffe.net.graph.assemble import assemble, load_param
from caffe.net.graph.gradients import first_diffs, gradients_apart, have_several_diffs
from caffe.net.graph.shapes import infer_tops
from caffe.net.graph.step import Learnable, Step
from caffe.net.measure import debug
from caffe.net.plan.loss_scale import LossScale
from caffe.net.plan.precision import check as check_precision
from caffe.net.run import monte_carlo, stepwise
from caffe.net.run.denormals import flush_in_worker_threads
from caffe.net.run.module import NetModule
from caffe.net.run.runners import Runners
from caffe.net.turns import Turns, in_turn
from caffe.net.views import Views
from caffe.parameter_memory import lent_copies_follow
from caffe.proto import caffe_pb2

__all__ = ["Net"]


class Net(Views):
    """A net built from a prototxt.

        net = Net("deploy.prototxt", caffe.TEST, weights="net.caffemodel")
        net.blobs["data"].data[...] = image
        probabilities = net.forward()["prob"]

    `network_file` is a path or a NetParameter. `phase` is caffe.TRAIN or caffe.TEST; `level` and `stages` select layers
    by their include and exclude rules. Files of the older V0 and V1 formats are upgraded. Raises FileError,
    ProtoError, NetError and LayerError, with file and line where they are known.

    Two runners share the layers and parameters: `forward` and `backward` run layer by layer and fill every blob and
    diff; `forward_backward` runs the graph as one piece (NetModule), and keeps the diffs of parameters only, unless
    `keep_diffs` is set. `precision`, torch.bfloat16 or on a GPU torch.float16, is that of runs as one piece only; runs
    layer by layer are float32. With `python_layers` False a net with a layer of the type Python, which runs the code of
    a module that it names, is refused before anything is imported (None: as CAFFE_PYTHON_LAYERS says).
    """

    def __init__(
        self,
        network_file: str | Path | Any,
        phase: int | str | None = None,
        level: int | None = None,
        stages: Sequence[str] | int | None = None,
        weights: str | Path | None = None,
        device: torch.device | str | None = None,
        precision: torch.dtype = torch.float32,
        python_layers: bool | None = None,
    ) -> None:
        if isinstance(phase, (str, Path)):  # pycaffe's older order: Net(file, weights, phase)
            if weights is not None:
                raise NetError(f'weights are given twice, as "{phase}" and as "{weights}": give one file')
            weights, phase, level = phase, level, None
        param, self.path = load_param(network_file)
        if phase is not None:
            if phase not in (caffe_pb2.TRAIN, caffe_pb2.TEST):
                raise NetError(f"phase is {phase!r}, expected caffe.TRAIN ({caffe_pb2.TRAIN}) or caffe.TEST")
            param.state.phase = phase
        if level is not None:
            param.state.level = level
        if stages is not None:
            param.state.stage.extend([stages] if isinstance(stages, str) else stages)
        self.device = mode.chosen(device)
        flush_in_worker_threads()  # before the first operation that starts them
        check_precision(precision, self.device)
        self.precision = precision
        self.loss_scale = LossScale() if precision is torch.float16 else None
        self._build(param, python_layers)
        self.debug_info: bool = param.debug_info
        self.keep_diffs = False
        self.callbacks: dict[str, list[Callable[[int], Any]]] = {
            f"{when}_{what}": [] for when in ("before", "after") for what in ("forward", "backward")
        }
        if weights is not None:
            self.copy_from(weights)

    def _build(self, param: Any, python_layers: bool | None) -> None:
        graph, self._locate = assemble(param, self.path, self.device, python_layers)
        self.name: str = param.name
        self.phase: int = param.state.phase
        self.steps: list[Step] = graph.steps
        self.layers: list[Layer] = [step.layer for step in graph.steps]
        self.layer_names: list[str] = [layer.name for layer in self.layers]
        self.blobs: OrderedDict[str, Blob] = Named((blob.name, blob) for blob in graph.blobs)
        self.inputs: list[str] = graph.inputs
        self.outputs: list[str] = graph.outputs
        self.learnable: list[Learnable] = graph.learnable
        self.runners = Runners(self.steps, self.name, self.outputs, self.device, self.precision, self.loss_scale)
        self.turns = Turns(self.name, [self.blobs[name] for name in self.inputs])
        self._first_diffs = first_diffs(graph.steps)
        self._several_diffs = False
        self._refresh_params()
        log.info("net.cpp:257", "Network initialization done.")

    # -- running ---------------------------------------------------------------------------------------------------

    @property
    def _watched(self) -> bool:
        """Whether somebody wants to see the layers run."""
        return self.debug_info or any(self.callbacks.values())

    @in_turn
    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> dict[str, np.ndarray]:
        """Run the layers from `start` to `end`, both included; by default all.

        Keyword arguments are arrays for the net's inputs. Returns the output blobs' arrays (all inputs must then be
        named or set), or the tops of `end`, and those named in `blobs`. Raises NetError for unknown names, and for an
        `end` before `start`.
        """
        first = self._index(start) if start is not None else 0
        last = self._index(end) if end is not None else len(self.steps) - 1
        self._check_order("forward", first, last)
        more = [self._blob(name).name for name in blobs or []]
        if kwargs:
            batches.feed(self, "forward", self.inputs, kwargs)
        names = self.steps[last].top_names if end is not None else self.outputs
        if self.runners.mode.optimized and start is None and end is None and not self._watched:
            self._infer(more)
        else:
            self._forward(first, last)
        return Results((name, self._blob(name).data) for name in [*names, *more])

    @in_turn
    def forward_loss(self) -> float:
        """Run all layers; returns the loss: each top with a loss weight, summed and weighted."""
        return self._forward(0, len(self.steps) - 1)

    @in_turn
    def backward(
        self, diffs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> dict[str, np.ndarray]:
        """Run backward from layer `start` down to `end`, both included; by default all.

        Keyword arguments are arrays for the diffs of output blobs. Blob diffs are overwritten, parameter diffs added
        to. Returns the diffs of the net's inputs, or of the bottoms of `end`, and those named in `diffs`. Raises
        NetError for unknown names, and for an `end` that comes after `start` in the net.
        """
        first = self._index(start) if start is not None else len(self.steps) - 1
        last = self._index(end) if end is not None else 0
        self._check_order("backward", last, first)
        more = [self._blob(name).name for name in diffs or []]
        if kwargs:
            batches.feed(self, "backward", self.outputs, kwargs, diff=True)
        names = self.steps[last].bottom_names if end is not None else self.inputs
        self._backward(first, last)
        if self.debug_info and start is None and end is None:
            debug.log_norms(self.learnable)
        return Results((name, self._blob(name).diff) for name in [*names, *more])

    @in_turn
    def forward_backward(self) -> float:
        """One pass forward and backward for training; returns the loss and adds to the parameter diffs."""
        if not self.runs_as_one:
            loss = self.forward_loss()
            self.backward()
            return loss
        for entry in self.learnable:
            entry.blob.settle_diff()
        self.turns.check_inputs()
        with lent_copies_follow(), gradients_apart([blob for step in self.steps for blob in step.params]):
            return self.runners.step()

    @property
    def runs_as_one(self) -> bool:
        """Whether `forward_backward` runs the graph as one piece, and not layer by layer."""
        return not (self.keep_diffs or self._watched or self._several_diffs or self._diffs_matter())

    def _diffs_matter(self) -> bool:
        """Whether a user keeps a diff, which the pass must fill, or has written one that backward starts from."""
        kept = any(blob.diff_memory.lent for blob in self.blobs.values())
        return kept or not all(blob.diff_memory.is_still(weight) for blob, weight in self._first_diffs)

    @in_turn
    def evaluate(self) -> float:
        """One pass forward without gradients, as one piece where nobody watches the layers; returns the loss.

        In TEST it computes the outputs only, and what `optimize` was told to keep.
        """
        if self._watched:
            return self.forward_loss()
        if self.phase == caffe_pb2.TEST:
            return self._infer()
        with lent_copies_follow():
            return self.runners.training.evaluate()

    def _backward(self, first: int, last: int) -> None:
        before, after = self.callbacks["before_backward"], self.callbacks["after_backward"]
        with torch.autograd.set_multithreading_enabled(False):
            for index in range(first, last - 1, -1):
                if before:
                    _call(before, index)
                self.backward_step(index)
                if after:
                    _call(after, index)

    def _forward(self, first: int, last: int) -> float:
        self.turns.check_inputs()
        before, after = self.callbacks["before_forward"], self.callbacks["after_forward"]
        losses = []
        with torch.no_grad():  # layers that run backward switch it on; saying so once for all others saves time
            for index in range(first, last + 1):
                if before:
                    _call(before, index)
                losses += self.forward_step(index)
                if after:
                    _call(after, index)
        return float(sum(loss.item() for loss in losses))

    def forward_step(self, index: int) -> list[torch.Tensor]:
        """Run one layer forward and fill its tops; returns its weighted losses."""
        step = self.steps[index]
        with lent_copies_follow():
            losses = stepwise.forward_step(step)
        if self.debug_info:
            debug.log_forward(step)
        return losses

    def backward_step(self, index: int) -> None:
        """Run one layer backward: overwrite its bottoms' diffs, add to its parameters' diffs."""
        step = self.steps[index]
        with lent_copies_follow():
            stepwise.backward_step(step)
        if self.debug_info and step.backward:
            debug.log_backward(step)

    def clear_param_diffs(self) -> None:
        """Set the gradients of all parameters to zero."""
        for entry in self.learnable:
            entry.blob.clear_diff()

    @in_turn
    def reshape(self) -> None:
        """Give every blob the shape that follows from the present shapes of the inputs."""
        for index, step in enumerate(self.steps):
            if isinstance(step.layer, Source):
                continue
            try:
                shapes = infer_tops(step)
            except CaffeError as error:
                raise error.placed(self._locate(index)) from error.__cause__
            for blob, shape in zip(step.tops, shapes, strict=True):
                step.shape_top(blob, shape)
        self.runners.forget_shapes()

    forward_all = batches.forward_all
    forward_backward_all = batches.forward_backward_all
    _batch = batches.batch_rows  # pycaffe's name, which scripts use

    def _infer(self, more: Sequence[str] = ()) -> float:
        self.turns.check_inputs()
        with lent_copies_follow():
            return self.runners.infer(more)

    # -- how it runs -----------------------------------------------------------------------------------------------

    @property
    def module(self) -> NetModule:
        """The same graph as one `torch.nn.Module`, over the same parameters: what runs training steps."""
        return self.runners.training

    @property
    def runner(self) -> NetModule:
        """What runs the net as one piece: for inference in TEST, else `module`."""
        return self.runners.inference if self.phase == caffe_pb2.TEST else self.runners.training

    def optimize(self, keep: Sequence[str] = (), compile: bool = False, engine: str = "torch") -> None:
        """Let `forward()` of the whole net run as one piece that computes its outputs and the blobs `keep`, only.

        For nets in TEST. Layers are merged and their weights laid out for their kernels; weights that change later are
        noticed. Reading another blob's data is an error then. A forward from or to a layer, and one with callbacks,
        still runs layer by layer; `stepwise()` returns to that for good. What an earlier call kept stays kept until
        then. With `compile` the first run compiles the net through torch.compile, weights as constants: once they
        change, the net runs uncompiled. The `engine` "openvino" runs the net on a CPU by OpenVINO. Raises NetError, and
        CaffeError where there is no compiler or no OpenVINO.
        """
        if self.phase != caffe_pb2.TEST:
            raise NetError(f'net "{self.name}": optimize is for a net in TEST, this one is in TRAIN; build one in TEST')
        self.runners.optimize([self._blob(name).name for name in keep], compile, engine)

    def compile(self, keep: Sequence[str] = ()) -> None:
        """Let training steps (`forward_backward`) run through torch.compile.

        The first step compiles, for seconds to minutes; what it makes is kept on disk for later processes. From then on
        a step fills the outputs and the blobs `keep` of this call and of calls of `slim` only, and reading another
        blob's data is an error; `stepwise()` returns to steps that are not compiled. Raises CaffeError where there is
        no compiler.
        """
        self.runners.compile([self._blob(name).name for name in keep])

    def slim(self, keep: Sequence[str] = ()) -> None:
        """Let training steps (`forward_backward`) fill the outputs and the blobs `keep` only.

        That takes less memory and lets more layers run as one; reading another blob's data is an error then, and
        `stepwise()` returns to steps that fill every blob. Further calls, and `compile` before or after, add to the
        blobs that are kept. `caffe train` runs this way.
        """
        self.runners.slim([self._blob(name).name for name in keep])

    def stepwise(self) -> None:
        """Let `forward()` run layer by layer again, and every run fill every blob: undo the three above."""
        self.runners.stepwise()

    def monte_carlo(self, on: bool = True) -> None:
        """Let Dropout layers of a net in TEST draw masks, so that each run gives another sample; or no more."""
        monte_carlo.switch(self.layers, self.phase, on)
        self.runners.rebuild()

    # -- weights ---------------------------------------------------------------------------------------------------

    @in_turn
    def copy_from(self, path: str | Path) -> None:
        """Load the weights of layers with equal names from a .caffemodel or HDF5 file; other layers keep theirs.

        One warning lists the layers that keep theirs. Raises NetError where a shape differs, and where the file has
        weights for no layer of the net.
        """
        store.copy_from(self, path)

    load_hdf5 = copy_from

    def save(self, path: str | Path, diffs: bool = False) -> None:
        """Write the net with its weights as a .caffemodel; atomically."""
        store.save(self, path, diffs)

    def save_hdf5(self, path: str | Path, diffs: bool = False) -> None:
        """Write the weights as HDF5, in Caffe's layout; atomically."""
        store.save_hdf5(self, path, diffs)

    def to_proto(self) -> caffe_pb2.NetParameter:
        """The NetParameter of the net as it runs: filtered, with automatic splits, without weights."""
        return store.to_proto(self)

    def share_with(self, other: Net) -> None:
        """Use the parameters of the layers of `other` that have the same names: one memory for both nets."""
        places = [[step.layer.param_blobs.index(blob) for blob in step.params] for step in self.steps]
        if store.share(self, other):
            for step, indices in zip(self.steps, places, strict=True):
                step.params = [step.layer.param_blobs[index] for index in indices]
            self._several_diffs = have_several_diffs(self.steps)
            self._refresh_params()
            self.runners.rebuild()

    def set_input_arrays(self, data: np.ndarray, labels: np.ndarray) -> None:
        """Give the net's MemoryData layer its arrays: data (N, C, H, W) and labels (N, 1, 1, 1)."""
        source: Any
        for source in self._sources:
            if source.takes_arrays:
                source.set_arrays(data, labels)
                return
        raise NetError(f'net "{self.name}": set_input_arrays needs a MemoryData layer, and the net has none')

    def close(self) -> None:
        """Stop data threads and close files."""
        for source in self._sources:
            source.close()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _refresh_params(self) -> None:
        params = ((layer.name, layer.blobs) for layer in self.layers if layer.tensors)
        vars(self)["params"] = Named(params, "layer with parameters")

    def _check_order(self, call: str, first: int, last: int) -> None:
        """Raise NetError where a run of the layers `first` to `last` would run none."""
        if first > last and self.layer_names:
            start, end = (last, first) if call == "backward" else (first, last)
            names = self.layer_names
            raise NetError(
                f'{call}: start is layer "{names[start]}" (number {start}) and end is layer "{names[end]}" (number '
                f"{end}): no layer would run; {call} runs {'down' if call == 'backward' else 'up'} from start to end"
            )

    def _blob(self, name: str) -> Blob:
        return self.blobs[name]

    def _index(self, layer_name: str) -> int:
        try:
            return self.layer_names.index(layer_name)
        except ValueError:
            raise unknown("layer", layer_name, self.layer_names) from None


def _call(callbacks: Sequence[Callable[[int], Any]], index: int) -> None:
    for callback in callbacks:
        callback(index)
