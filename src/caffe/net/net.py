"""Net: a graph of layers that runs layer by layer, with access to every blob and gradient."""

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
from caffe.net.engines.denormals import flush_in_worker_threads
from caffe.net.graph.assemble import assemble, load_param
from caffe.net.graph.gradients import first_diffs, gradients_apart, have_several_diffs
from caffe.net.graph.shapes import infer_tops
from caffe.net.graph.step import Learnable, Step
from caffe.net.measure import debug
from caffe.net.plan.loss_scale import LossScale
from caffe.net.plan.precision import check_precision
from caffe.net.run import allocator, monte_carlo, stepwise
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
    ProtoError, NetError and LayerError, with file and line if they are known.

    `forward` and `backward` run layer by layer and fill every blob and diff. `forward_backward` runs the whole graph at
    once (NetModule), and keeps only the diffs of parameters, unless `keep_diffs` is set. `precision`, torch.bfloat16 or
    on a GPU torch.float16, applies to runs of the whole graph; runs layer by layer are float32. With `python_layers`
    False, a net with a Python layer raises an error before code is imported (None: see CAFFE_PYTHON_LAYERS).
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
        if isinstance(phase, (str, Path)):  # pycaffe's old argument order: Net(file, weights, phase)
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
        flush_in_worker_threads()  # before the first operation starts the threads
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
        """Whether callbacks or debug_info require a run layer by layer."""
        return self.debug_info or any(self.callbacks.values())

    @in_turn
    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> dict[str, np.ndarray]:
        """Run the layers from `start` to `end`, both inclusive; by default all layers.

        Keyword arguments are arrays for the net's inputs. Returns the arrays of the output blobs, or of the tops of
        `end`, and of the blobs named in `blobs`. Raises NetError for unknown names, and if `end` comes before `start`.
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
        """Run all layers. Returns the loss, the weighted sum of all tops with a loss weight."""
        return self._forward(0, len(self.steps) - 1)

    @in_turn
    def backward(
        self, diffs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> dict[str, np.ndarray]:
        """Run backward from layer `start` down to `end`, both inclusive; by default all layers.

        Keyword arguments are arrays for the diffs of output blobs. Diffs of blobs are overwritten, diffs of parameters
        accumulated. Returns the diffs of the net's inputs, or of the bottoms of `end`, and those named in `diffs`.
        Raises NetError for unknown names, and if `end` comes after `start` in the net.
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
        """Run forward and backward for training. Adds to the parameter diffs and returns the loss."""
        if not self.runs_as_one:
            loss = self.forward_loss()
            self.backward()
            return loss
        for entry in self.learnable:
            entry.blob.settle_diff()
        self.turns.check_inputs()
        with lent_copies_follow(), gradients_apart(self.steps):
            return self.runners.step()

    @property
    def runs_as_one(self) -> bool:
        """Whether `forward_backward` runs the graph as one piece, and not layer by layer."""
        return not (self.keep_diffs or self._watched or self._several_diffs or self._diffs_matter())

    def _diffs_matter(self) -> bool:
        """Whether the user holds an array of a diff, which the pass must fill, or wrote an initial diff."""
        kept = any(blob.diff_memory.lent for blob in self.blobs.values())
        return kept or not all(blob.diff_memory.is_still(weight) for blob, weight in self._first_diffs)

    @in_turn
    def evaluate(self) -> float:
        """Run forward without gradients and return the loss. Without callbacks the whole graph runs at once.

        In TEST only the outputs and the blobs kept by `optimize` are computed.
        """
        if self._watched:
            return self.forward_loss()
        if self.phase == caffe_pb2.TEST:
            return self._infer()
        with lent_copies_follow():
            return self.runners.training.evaluate()

    def _backward(self, first: int, last: int) -> None:
        before, after = self.callbacks["before_backward"], self.callbacks["after_backward"]
        allocator.keep_freed_memory()  # autograd allocates the gradients of all weights again in each pass
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
        with torch.no_grad():  # once for all layers, to save time; layers that run backward enable gradients
            for index in range(first, last + 1):
                if before:
                    _call(before, index)
                losses += self.forward_step(index)
                if after:
                    _call(after, index)
        return float(sum(loss.item() for loss in losses))

    def forward_step(self, index: int) -> list[torch.Tensor]:
        """Run one layer forward and fill its tops. Returns its weighted losses."""
        step = self.steps[index]
        losses = stepwise.forward_step(step)
        if self.debug_info:
            debug.log_forward(step)
        return losses

    def backward_step(self, index: int) -> None:
        """Run one layer backward. Overwrites the diffs of its bottoms, and adds to the diffs of its parameters."""
        step = self.steps[index]
        stepwise.backward_step(step)
        if self.debug_info and step.backward:
            debug.log_backward(step)

    def clear_param_diffs(self) -> None:
        """Set the gradients of all parameters to zero."""
        for entry in self.learnable:
            entry.blob.clear_diff()

    @in_turn
    def reshape(self) -> None:
        """Update the shapes of all blobs to the current shapes of the inputs."""
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
        """The same graph and parameters as one `torch.nn.Module`, which runs training steps."""
        return self.runners.training

    @property
    def runner(self) -> NetModule:
        """The module that runs the whole net: the one for inference in TEST, else `module`."""
        return self.runners.inference if self.phase == caffe_pb2.TEST else self.runners.training

    def optimize(self, keep: Sequence[str] = (), compile: bool = False, engine: str = "torch") -> None:
        """Optimize `forward()` of a net in TEST: it then computes only the outputs and the blobs `keep`.

        Layers are fused and their weights reordered; later changes of weights are detected. Reading another blob's data
        is an error. Partial runs and runs with callbacks still go layer by layer. `stepwise()` disables all this; until
        then blobs kept by earlier calls stay kept. `compile` uses torch.compile, with weights as constants: if they
        change, the net runs uncompiled. `engine="openvino"` runs the net with OpenVINO on the CPU. Raises NetError, and
        CaffeError if there is no compiler or no OpenVINO.
        """
        if self.phase != caffe_pb2.TEST:
            raise NetError(f'net "{self.name}": optimize is for a net in TEST, this one is in TRAIN; build one in TEST')
        self.runners.optimize([self._blob(name).name for name in keep], compile, engine)

    def compile(self, keep: Sequence[str] = ()) -> None:
        """Compile training steps (`forward_backward`) with torch.compile.

        The first step compiles, which takes seconds to minutes. The code is cached on disk for later processes. From
        then on a step fills only the outputs and the blobs `keep` of calls of `compile` and `slim`. Reading the data of
        any other blob raises an error. `stepwise()` disables compilation. Raises CaffeError if there is no compiler.
        """
        self.runners.compile([self._blob(name).name for name in keep])

    def slim(self, keep: Sequence[str] = (), recompute: bool = False) -> None:
        """Make training steps (`forward_backward`) fill only the outputs and the blobs `keep`, as `caffe train` does.

        This saves memory and allows more layers to be fused. Reading the data of any other blob raises an error. With
        `recompute`, backward computes most blobs again instead of reading them from memory: equal numbers, less memory,
        more time. `stepwise()` undoes both. Further calls, and calls of `compile`, add kept blobs.
        """
        self.runners.slim([self._blob(name).name for name in keep], recompute)

    def stepwise(self) -> None:
        """Undo `optimize`, `compile` and `slim`: run layer by layer and fill every blob."""
        self.runners.stepwise()

    def monte_carlo(self, on: bool = True) -> None:
        """Switch Monte Carlo dropout on or off: Dropout layers draw masks in TEST, so that each run is a sample."""
        monte_carlo.switch(self.layers, self.phase, on)
        self.runners.rebuild()

    # -- weights ---------------------------------------------------------------------------------------------------

    @in_turn
    def copy_from(self, path: str | Path) -> None:
        """Load weights from a .caffemodel or HDF5 file into the layers with the same names.

        A warning lists the layers that keep their weights. Raises NetError if a shape differs, or if the file has no
        weights for any layer of the net.
        """
        store.copy_from(self, path)

    load_hdf5 = copy_from

    def save(self, path: str | Path, diffs: bool = False) -> None:
        """Write the net with its weights to a .caffemodel file, atomically."""
        store.save(self, path, diffs)

    def save_hdf5(self, path: str | Path, diffs: bool = False) -> None:
        """Write the weights to an HDF5 file in Caffe's layout, atomically."""
        store.save_hdf5(self, path, diffs)

    def to_proto(self) -> caffe_pb2.NetParameter:
        """The NetParameter of the built net: filtered, with automatic splits, without weights."""
        return store.to_proto(self)

    def share_with(self, other: Net) -> None:
        """Use the parameters of the layers of `other` with the same names. Both nets then share their memory."""
        places = [[step.layer.param_blobs.index(blob) for blob in step.params] for step in self.steps]
        if store.share(self, other):
            for step, indices in zip(self.steps, places, strict=True):
                step.params = [step.layer.param_blobs[index] for index in indices]
            self._several_diffs = have_several_diffs(self.steps)
            self._refresh_params()
            self.runners.rebuild()

    def set_input_arrays(self, data: np.ndarray, labels: np.ndarray) -> None:
        """Set the arrays of the net's MemoryData layer: data (N, C, H, W) and labels (N, 1, 1, 1)."""
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
        """Raise NetError if a run of the layers `first` to `last` is empty."""
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
