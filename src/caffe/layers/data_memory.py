"""Layers that get data from arrays and fillers, and HDF5Output, which writes data to a file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caffe import filler, log
from caffe.data.databases.datum import DatumReader, planes
from caffe.data.pipeline import shard
from caffe.data.pipeline.rng import generator
from caffe.data.pipeline.transformer import BatchTransformer
from caffe.errors import DataError
from caffe.layers.base import Effects, Layer, Source, has_values, shape_text
from caffe.proto import caffe_pb2
from caffe.proto.caffe_pb2 import FillerParameter

__all__ = ["DummyData", "HDF5Output", "MemoryData"]


class _Rows(Source, abstract=True):
    """Base of MemoryData: delivers the rows of two arrays in batches, and starts again at their end."""

    lends = True
    batch_size: int
    _arrays: tuple[Tensor, Tensor] | None = None
    _next = 0
    _ahead, _step = 0, 1

    def deliver(self) -> tuple[Tensor, Tensor]:
        if self._arrays is None:
            self.error("has no data; call net.set_input_arrays(data, labels) or the layer's set_arrays before forward")
        count = len(self._arrays[0])
        share = shard.current() if self.phase == caffe_pb2.TRAIN else shard.WHOLE
        start = (self._next + self._ahead * self.batch_size) % count
        stop = start + self.batch_size * share.size
        self._next = stop % count
        self._ahead = self._step - 1
        if share.size == 1:
            return self._arrays[0][start:stop], self._arrays[1][start:stop]
        rows = torch.arange(start + share.rank, stop, share.size) % count
        return self._arrays[0][rows], self._arrays[1][rows]

    def deal(self, first: int, step: int) -> bool:
        self._ahead, self._step = first, step
        return True

    def position(self) -> bytes:
        return json.dumps({"row": self._next}).encode()

    def seek(self, position: bytes) -> None:
        row = self._row_at(position)
        self._next = (row - row % self.batch_size) % len(self._arrays[0]) if self._arrays is not None else 0

    def check_position(self, position: bytes) -> None:
        self._row_at(position)

    def _row_at(self, position: bytes) -> int:
        """Decode the row number that the bytes hold."""
        try:
            row = json.loads(position)["row"]
        except (ValueError, KeyError, TypeError, RecursionError):
            row = None
        if type(row) is not int or row < 0:
            self.error(f"cannot go to position {position[:200]!r}: it was not saved by a layer of this type")
        return row

    def _check_rows(self, rows: int) -> None:
        if not rows or rows % self.batch_size:
            self.error(f"got {rows} rows, expected a multiple of batch_size {self.batch_size}")

    def _hold(self, data: Any, labels: Any) -> None:
        self._arrays = _tensor(data), _tensor(labels).reshape(-1, 1, 1, 1)
        self._next = 0


class MemoryData(_Rows, bottoms=0, tops=2):
    """Delivers arrays that the program sets, batch by batch, and starts again at their end.

    tops: data (N, channels, height, width), label (N, 1, 1, 1), as views of the arrays

    `set_arrays` does not transform the values; `add_datums` and `add_images` apply transform_param.
    Source: BVLC memory_data_layer.cpp.
    """

    takes_arrays = True

    def setup(self, *bottoms: Tensor) -> None:
        opt = self.opt
        self.batch_size = self.own_batch(opt.batch_size)
        self.shape = (opt.channels, opt.height, opt.width)
        if not all((opt.batch_size, *self.shape)):
            got = f"{opt.batch_size}, {opt.channels}, {opt.height}, {opt.width}"
            self.error(f"batch_size, channels, height and width are {got}; set them all in memory_data_param")
        self.shapes = [(self.batch_size, *self.shape), (self.batch_size,)]
        self._added = 0

    def set_arrays(self, data: np.ndarray, labels: np.ndarray) -> None:
        """Deliver these arrays: data (n, C, H, W), labels (n) or (n, 1, 1, 1), n a multiple of the batch size.

        float32 arrays are not copied, so later changes to them appear in later batches. transform_param is not applied.
        """
        rows, count = len(data), np.size(labels)
        if tuple(np.shape(data)[1:]) != self.shape:
            self.error(f"data has shape {np.shape(data)}, expected (n, {', '.join(map(str, self.shape))})")
        self.require(rows == count, f"data has {rows} rows and labels {count}; expected equal numbers")
        self._check_rows(rows)
        if self.spec.HasField("transform_param"):
            log.warning("memory_data_layer.cpp:100", f"{self.type} does not transform array data on Reset()")
        self._hold(data, labels)

    def add_datums(self, datums: Sequence[Any]) -> None:
        """Deliver these Datum messages after transform_param. Their number must be a multiple of the batch size."""
        read = DatumReader(_transformer(self).color)
        self._add([read(datum.SerializeToString()) for datum in datums])

    def add_images(self, images: Sequence[np.ndarray], labels: Sequence[int]) -> None:
        """Deliver these images after transform_param: (H, W, C) as in OpenCV or (H, W), of uint8 or float32."""
        self.require(len(images) == len(labels), f"got {len(images)} images and {len(labels)} labels")
        self._add([(planes(image), label) for image, label in zip(images, labels, strict=True)])

    def set_batch_size(self, batch_size: int) -> None:
        """Change the batch size, for the arrays that are set next."""
        self.require(batch_size > 0, f"batch size is {batch_size}, expected at least 1")
        self.batch_size = batch_size
        self.shapes = [(batch_size, *self.shape), (batch_size,)]
        self._arrays = None

    def _add(self, images: list[tuple[np.ndarray, int]]) -> None:
        self._check_rows(len(images))
        self._added += 1
        data = _transformed(self, [image for image, _ in images], self._added)
        if data.shape[1:] != self.shape:
            self.error(f"the images give shape {data.shape[1:]}, but memory_data_param says {self.shape}")
        self._hold(data, [label for _, label in images])


class DummyData(Source, bottoms=0, tops=(1, None)):
    """Fills tops of fixed shapes with fillers.

    tops: one for each `shape` (or num, channels, height, width); a single shape applies to all tops

    A constant filler (the default, 0) fills its top once; other fillers give new values in every forward pass. If all
    tops are 0, the initial value of blobs, the layer never writes them, so they can be used as inputs.
    Source: BVLC dummy_data_layer.cpp.
    """

    effects = Effects.CALLS | Effects.RANDOM

    def setup(self, *bottoms: Tensor) -> None:
        count = len(self.spec.top)
        fillers = list(self.opt.data_filler) or [FillerParameter(type="constant")]
        if len(fillers) not in (1, count):
            self.error(f"has {len(fillers)} data_filler for {count} tops; give none, 1 or {count}")
        self.shapes = self._legacy_shapes() if self._legacy() else [tuple(shape.dim) for shape in self.opt.shape]
        if len(self.shapes) not in (1, count):
            self.error(f"must specify shape once, or once per top ({count}); it is given {len(self.shapes)} times")
        self.shapes *= count if len(self.shapes) == 1 else 1
        self.fillers = fillers * (count if len(fillers) == 1 else 1)
        for param, shape in zip(self.fillers, self.shapes, strict=True):
            filler.check_filler(param, self.error)
            self.require(min(shape, default=1) >= 0, f"shape {shape} has a negative size")
        self._filled = False

    def deliver(self) -> tuple[Tensor | None, ...]:
        first, self._filled = not self._filled, True
        return tuple(
            _fill(shape, param) if param.type != "constant" or (first and param.value) else None
            for param, shape in zip(self.fillers, self.shapes, strict=True)
        )

    def deal(self, first: int, step: int) -> bool:
        return all(param.type == "constant" for param in self.fillers)  # then all batches are equal

    def _legacy(self) -> bool:
        opt = self.opt
        legacy = any((len(opt.num), len(opt.channels), len(opt.height), len(opt.width)))
        self.require(not (legacy and opt.shape), "has both shape and num, channels, height, width; keep shape")
        return legacy

    def _legacy_shapes(self) -> list[tuple[int, ...]]:
        """The shape (num, channels, height, width) of each top. Each field is given once, or once per top."""
        count = len(self.spec.top)
        columns = []
        for name in ("num", "channels", "height", "width"):
            sizes = list(getattr(self.opt, name))
            if len(sizes) not in (1, count):
                self.error(f"must specify {name} once, or once per top ({count}); it is given {len(sizes)} times")
            columns.append(sizes * (count if len(sizes) == 1 else 1))
        return list(zip(*columns, strict=True))


class HDF5Output(Layer, bottoms=2, tops=0):
    """Writes its bottoms to the datasets "data" and "label" of an HDF5 file.

    bottoms: data and label with the same number of rows, up to 4 axes; stored with 4 axes, as (N, C, H, W)

    Each forward pass appends its rows, and the file is complete after each (in Caffe the second pass fails).
    Source: BVLC hdf5_output_layer.cpp.
    """

    effects = Effects.CALLS

    def setup(self, *bottoms: Tensor) -> None:
        self.path = self.opt.file_name
        self.require(bool(self.path), "hdf5_output_param.file_name is not set")
        folder = os.path.dirname(os.path.abspath(self.path))
        self.require(os.path.isdir(folder), f'folder "{folder}" of file_name does not exist; make it')
        for index, x in enumerate(bottoms):
            self.require(x.dim() <= 4, f"{self.bottom_name(index)} has shape {shape_text(x.shape)}, at most 4 axes fit")
        rows = [_four(x.shape)[0] for x in bottoms]
        self.require(rows[0] == rows[1], f"data has {rows[0]} rows and label {rows[1]}; expected equal numbers")
        self._mode = "w"

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        if not all(map(has_values, bottoms)):
            return ()  # shape inference
        log.info("hdf5_output_layer.cpp:33", f"Saving HDF5 file {self.path}")
        try:
            import h5py

            with h5py.File(self.path, self._mode) as file:
                for name, x in zip(("data", "label"), bottoms, strict=True):
                    _append(file, name, x.detach().reshape(_four(x.shape)).cpu().numpy())
        except OSError as error:
            self.error(f'cannot write the HDF5 file "{self.path}": {error}')
        self._mode = "a"
        log.info("hdf5_output_layer.cpp:40", f"Successfully saved {_four(bottoms[0].shape)[0]} rows")
        return ()


def _fill(shape: Sequence[int], param: Any) -> Tensor:
    value = torch.empty(tuple(shape))
    filler.fill(value, param)
    return value


def _append(file: Any, name: str, rows: np.ndarray) -> None:
    if name not in file:
        file.create_dataset(name, data=rows, maxshape=(None, *rows.shape[1:]))
        return
    dataset = file[name]
    dataset.resize(len(dataset) + len(rows), axis=0)
    dataset[-len(rows) :] = rows


def _four(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape extended to 4 axes with ones."""
    return (*shape, *[1] * (4 - len(shape)))


def _transformer(layer: MemoryData) -> BatchTransformer:
    layer.require(not layer.spec.transform_param.mixup, "keeps labels as they are; remove mixup")
    try:
        return BatchTransformer(layer.spec.transform_param, layer.phase)
    except DataError as error:
        layer.error(str(error))


def _transformed(layer: MemoryData, images: list[np.ndarray], number: int) -> np.ndarray:
    """The images after transform_param, as one array. `number` selects the random choices."""
    transformer, seed = _transformer(layer), torch.initial_seed() % (1 << 62)
    batch = transformer.batch(len(images), generator(seed, number))
    for index, image in enumerate(images):
        try:
            batch.add(*transformer.varied(image, 0, seed, number, index))
        except DataError as error:
            layer.error(f"image {index} {error}")
    return batch.finish()[0]


def _tensor(values: Any) -> Tensor:
    """Values as a float32 tensor, which shares the array's memory if possible."""
    return torch.from_numpy(np.require(values, np.float32, ["C", "W"]))
