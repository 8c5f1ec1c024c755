"""TensorBoard's event files of a training run, written by torch's SummaryWriter."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caffe import log
from caffe.doctor.finding import Finding
from caffe.errors import CaffeError, FileError, require_extra
from caffe.net import Net
from caffe.net.graph.step import Step
from caffe.pictures.grid import image_tiles
from caffe.proto import text
from caffe.solver import Watcher
from caffe.solver.run import TrainingRun

__all__ = ["Events", "graph"]

_POINTS, _LOOKS, _IMAGES = 1000, 20, 36


class Events(Watcher):
    """Writes the data that TensorBoard shows to a folder:

    - scalars: `loss` (the mean since the last point), `rate`, `test/NAME` of test net 0, `test1/NAME` of the next
    - histograms of weights and of gradients, and `updates/LAYER`, an update's size relative to the weights
    - images: a batch of each data layer, and the first layer's filters as they change
    - the graph: a node for each layer, with its options and the shapes of its tops
    - texts: the solver, and the findings of the watcher

    There are at most a thousand points of losses, and twenty histograms and filters. Raises MissingExtra and FileError.
    """

    def __init__(self, folder: str | Path) -> None:
        require_extra("tensorboard", "tensorboard", "writing TensorBoard's event files")
        from torch.utils.tensorboard import SummaryWriter

        try:
            self.writer: Any = SummaryWriter(str(folder))
        except OSError as error:
            raise FileError(f"cannot write event files into {folder}: {error.strerror}") from error
        self.folder = Path(folder)
        self._sum, self._count = 0.0, 0
        self._every = self._look = 1
        self._looking = False

    def started(self, solver: TrainingRun) -> None:
        length = max(1, solver.param.max_iter - solver.iter)
        self._every, self._look = max(1, length // _POINTS), max(1, length // _LOOKS)
        config: Any = require_extra("tensorboard.compat.proto.config_pb2", "tensorboard", "writing a graph")
        self.writer.add_text("solver", text.dumps(solver.param))
        self.writer.file_writer.add_graph((graph(solver.net), config.RunMetadata()))
        self._filters(solver)

    def found(self, iteration: int, finding: Finding) -> None:
        """Write a finding of the watcher."""
        self.writer.add_text("findings", f"{finding.code}: {finding.message}. {finding.advice}", iteration)

    def computed(self, solver: TrainingRun, iteration: int, loss: float) -> None:
        self._looking = iteration % self._look == 0 or iteration + 1 == solver.param.max_iter
        if not self._looking:
            return
        for entry in solver.net.learnable:
            grad = entry.blob.present_diff()
            if grad is not None:
                self._histogram(f"gradients/{_name(entry)}", grad, iteration)

    def iterated(self, solver: TrainingRun, iteration: int, loss: float, rate: float) -> None:
        self._sum, self._count = self._sum + loss, self._count + 1
        last = iteration + 1 == solver.param.max_iter
        if (iteration + 1) % self._every == 0 or last:
            self.writer.add_scalar("loss", self._sum / self._count, iteration + 1)
            self.writer.add_scalar("rate", rate, iteration + 1)
            self._sum, self._count = 0.0, 0
        if self._looking:
            self._weights(solver, iteration)
        if iteration == 0 or last:
            self._samples(solver.net, iteration)

    def _weights(self, solver: TrainingRun, iteration: int) -> None:
        for entry in solver.net.learnable:
            tensor = entry.tensor.detach()
            self._histogram(f"weights/{_name(entry)}", tensor, iteration)
            size, step = float(tensor.norm()), float(entry.blob.read_diff().norm())
            if size and math.isfinite(step / size):
                self.writer.add_scalar(f"updates/{_name(entry)}", step / size, iteration + 1)
        self._filters(solver)

    def _histogram(self, tag: str, values: torch.Tensor, iteration: int) -> None:
        finite = values.detach()[values.isfinite()]
        if finite.numel():
            self.writer.add_histogram(tag, finite.float().cpu().numpy(), iteration)

    def _filters(self, solver: TrainingRun) -> None:
        entry = next((each for each in solver.net.learnable if each.tensor.dim() == 4 and each.index == 0), None)
        if entry is not None and min(entry.tensor.shape[2:]) > 1:
            tiles = image_tiles(entry.tensor.detach().float().cpu().numpy()[:_IMAGES])
            self.writer.add_image(f"filters/{entry.layer}", tiles, solver.iter, dataformats="HWC")

    def _samples(self, net: Net, iteration: int) -> None:
        """Yield a batch of each data layer, if the current run keeps it."""
        for step in net.steps:
            if step.bottoms or not step.tops or len(step.tops[0].shape) != 4:
                continue
            try:
                batch = step.tops[0].data
            except CaffeError:  # a memory-saving run does not keep it
                continue
            if batch.shape[1] in (1, 3) and min(batch.shape[2:]) > 1 and np.isfinite(batch).all():
                tiles = image_tiles(np.asarray(batch[:_IMAGES]))
                self.writer.add_image(f"data/{step.layer.name}", tiles, iteration + 1, dataformats="HWC")

    def tested(self, solver: TrainingRun, iteration: int, net_index: int, outputs: dict[str, list[float]]) -> None:
        for name, values in outputs.items():
            for index, value in enumerate(values):
                tag = f"test{net_index or ''}/{name}" + (f"_{index}" if index else "")
                self.writer.add_scalar(tag, value, iteration)

    def snapshotted(self, solver: TrainingRun, path: str) -> None:
        self.writer.flush()

    def close(self) -> None:
        """Write the remaining data. Also called if the run ends with an error."""
        self.writer.close()
        log.info("watch", f"TensorBoard's event files are in {self.folder}")


def _name(entry: Any) -> str:
    return f"{entry.layer}/{entry.index}"


def graph(net: Net) -> Any:
    """Convert the net to TensorBoard's GraphDef, with a node for each layer."""
    compat: Any = require_extra("tensorboard.compat.proto.graph_pb2", "tensorboard", "writing a graph")
    made = compat.GraphDef()
    makers: dict[str, str] = {}
    for step in net.steps:
        node = made.node.add(name=step.layer.name, op=step.layer.type)
        node.input.extend(makers[name] for name in step.bottom_names)
        _describe(node, step)
        makers.update((name, f"{step.layer.name}:{index}") for index, name in enumerate(step.top_names))
    return made


def _describe(node: Any, step: Step) -> None:
    for top in step.tops:
        shape = node.attr["_output_shapes"].list.shape.add()
        for size in top.shape:
            shape.dim.add(size=size)
    for field, value in step.layer.spec.ListFields():
        if field.name.endswith("_param"):
            node.attr[field.name].s = str(value).encode()
