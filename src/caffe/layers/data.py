"""Layers that read batches from files, with prefetching."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from caffe import log
from caffe.data.databases.base import backend_of, open_source
from caffe.data.databases.datum import DatumReader
from caffe.data.pipeline import shard
from caffe.data.pipeline.prefetch import Arrays, Dealt, Prefetcher, State, Stream
from caffe.data.pipeline.rescaling import RESCALES
from caffe.data.pipeline.transformer import BatchTransformer
from caffe.data.streams.arrays import read_npy, read_npz
from caffe.data.streams.decoding import PictureStream
from caffe.data.streams.hdf5 import read_arrays, read_file_list
from caffe.data.streams.images import ImageStream, read_class_folders, read_image_list
from caffe.data.streams.records import RecordStream
from caffe.data.streams.rows import RowStream
from caffe.data.streams.windows import WindowStream, read_windows
from caffe.errors import CaffeError
from caffe.layers.base import Source
from caffe.proto import caffe_pb2

__all__ = ["SSD_CROPS", "ArrayData", "Data", "HDF5Data", "ImageData", "StreamSource", "WindowData"]

SSD_CROPS = tuple(
    f"TransformationParameter.{name}"
    for name in ("resize_param", "more_resize_param", "noise_param", "crop_h", "crop_w")
)
"""Fields of SSD's transform_param that layers reading single images support."""

_OURS = 20000  # number of the first field that BVLC Caffe does not have
_LATER = {"batch": 0, "skipped": 0}  # parts of a state that earlier versions did not save, with their defaults


class StreamSource(Source, abstract=True):
    """Base of the layers that deliver the batches of a `Stream`, which a background thread prefetches.

    `setup` opens `self.stream` and sets `self.shapes`. Reading begins with the first forward pass, and
    `data_param.prefetch` batches are kept ready. The position counts delivered batches, not prefetched ones.
    """

    stream: Stream | None = None
    state: State
    _ahead, _step = 0, 1
    _prefetcher: Prefetcher[tuple[Tensor, ...]] | None = None

    @property
    def batch_option(self) -> Any:
        """The options that give the batch size."""
        return self.opt

    @property
    def batch_size(self) -> int:
        """The number of images or rows in a batch."""
        return self.batch_option.batch_size

    def open(self, make: Callable[[], Stream]) -> None:
        """Open the stream, move to its start and find the shapes. Errors name this layer."""
        self.require(self.batch_size > 0, f"batch_size is {self.batch_size}, expected at least 1")
        self.batch_option.batch_size = self.own_batch(self.batch_size)
        self.require(self.spec.data_param.prefetch > 0, "data_param.prefetch is 0, expected at least 1")
        fact = "data_param.fast_decode is for Data and ImageData, which resize whole images; remove it"
        self.require(not self.spec.data_param.fast_decode or self.type in ("Data", "ImageData"), fact)
        seed = int(torch.randint(1 << 62, (), device="cpu"))  # caffe.set_random_seed fixes it
        with self.naming():
            self.stream = make()
            self._settle(self.stream)
            self.state = self.stream.start(seed)
            self.shapes = self.stream.shapes(self.state)[: len(self.spec.top)]

    def deliver(self) -> tuple[Tensor, ...]:
        if self.stream is None:
            self.error("has been closed; build the net again to read on")
        if self._prefetcher is None:
            on_gpu = self.device.type == "cuda"
            if isinstance(self.stream, PictureStream):
                self.stream.transformer.late = on_gpu and self.stream.transformer.plain
            prepare = partial(_tensors, count=len(self.spec.top), pin=on_gpu)
            depth = self.spec.data_param.prefetch
            stream = self.stream if self._step == 1 else Dealt(self.stream, self._ahead, self._step)
            self._prefetcher = Prefetcher(stream, self.state, depth, self.name, prepare)
        with self.naming():
            tensors, self.state = self._prefetcher.next()
        self._ahead = self._step - 1
        if isinstance(self.stream, PictureStream) and self.stream.transformer.late:
            return normalized(self.moved(tensors[0]), self.stream.transformer), *tensors[1:]
        return tensors

    @property
    def skipped(self) -> int:
        """The number of damaged records that were skipped, as data_param.skip_damaged allows."""
        return self.state.get("skipped", 0)

    def position(self) -> bytes:
        return _encoded(self.state)

    def mark(self) -> Callable[[], bytes]:
        return partial(_encoded, self.state)  # each batch creates a new state object, so this one does not change

    def seek(self, position: bytes) -> None:
        state = self._state_at(position)
        self._stop()
        self.state = state

    def check_position(self, position: bytes) -> None:
        state = self._state_at(position)
        if self.stream is not None:
            fault = self.stream.fault(state)
            self.require(not fault, f"cannot go to position {position[:200]!r}: {fault}")

    def deal(self, first: int, step: int) -> bool:
        self._stop()
        self._ahead, self._step = first, step
        return True

    def _state_at(self, position: bytes) -> State:
        """Decode the state that the bytes hold."""
        try:
            state = json.loads(position)
        except (ValueError, RecursionError):
            state = None
        mine = self.state.keys()
        if not isinstance(state, dict) or not mine - _LATER.keys() <= state.keys() <= mine:
            self.error(f"cannot go to position {position[:200]!r}: it was not saved by a layer of this type")
        return {key: state.get(key, _LATER.get(key)) for key in mine}

    def close(self) -> None:
        self._stop()
        if self.stream is not None:
            self.stream.close()
            self.stream = None

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Prefix the errors of the layer's source with the layer's name."""
        try:
            yield
        except CaffeError as error:
            text = str(error)
            prefix = f'layer "{self.name}" ({self.type}): '
            raise error.reworded(text if text.startswith(prefix) else prefix + text).at(self.name) from error

    def transformer(self) -> BatchTransformer:
        """The transformer that transform_param describes."""
        return BatchTransformer(self.spec.transform_param, self.phase)

    def _settle(self, stream: Stream) -> None:
        """Pass the general options of data_param, and this process's share of the data, to the stream."""
        opt = self.spec.data_param
        if isinstance(stream, PictureStream):
            stream.skip, stream.workers = opt.skip_damaged, opt.workers
        else:
            fact = "data_param.{} is for layers that read single images: Data and ImageData; remove it"
            self.require(not opt.skip_damaged, fact.format("skip_damaged"))
            self.require(not opt.workers, fact.format("workers"))
        if self.phase == caffe_pb2.TRAIN:  # in TEST every process reads all of the data
            stream.shard = shard.current()

    def _stop(self) -> None:
        if self._prefetcher is not None:
            self._prefetcher.close()
            self._prefetcher = None

    def _log_size(self, place: str) -> None:
        log.info(place, f"output data size: {','.join(map(str, self.shapes[0]))}")


class Data(StreamSource, bottoms=0, tops=(1, 2)):
    """Reads images, and labels if there is a second top, from a database: LMDB, LevelDB or tar shards.

    tops: data (N, C, H, W) after transform_param, label (N)

    Records are read in the order of their keys, again from the start at the end. With batch_size 1 their sizes may
    differ.
    Source: BVLC data_layer.cpp.  Caffe 1.0 reads rand_skip and force_encoded_color but ignores them.
    """

    honours = (*SSD_CROPS, *RESCALES)

    def __init__(self, spec: Any, phase: int = caffe_pb2.TRAIN) -> None:
        super().__init__(spec, phase)
        with self.naming():  # here and not in setup, for the order of lines in Caffe's log
            self._source = open_source(backend_of(spec.data_param), spec.data_param.source)

    def setup(self, *bottoms: Tensor) -> None:
        self.open(self._stream)
        self._log_size("data_layer.cpp:45")

    def _stream(self) -> RecordStream:
        transformer = self.transformer()
        resize = self.spec.transform_param.resize_param
        warped = transformer.resize is not None and resize.resize_mode == resize.WARP
        fast = self.spec.data_param.fast_decode
        fact = "fast_decode needs transform_param.resize_param with WARP; add it, or remove fast_decode"
        self.require(warped or not fast, fact)
        target = (resize.height, resize.width) if fast else None
        read = DatumReader(self.color_of(transformer), not transformer.reshaping, target)
        return RecordStream(self._source, read, transformer, self.opt.batch_size, self.opt.rand_skip)

    def color_of(self, transformer: BatchTransformer) -> bool | None:
        """Whether compressed images are decoded in colour; see `DatumReader`."""
        forced = self.spec.data_param.force_encoded_color
        fact = "cannot set both force_encoded_color and force_gray; remove one of them"
        self.require(not (forced and self.spec.transform_param.force_gray), fact)
        return True if forced else transformer.color


class ImageData(StreamSource, bottoms=0, tops=2):
    """Reads the images of a list file with lines `path label`, or of a folder with one sub-folder per class.

    tops: data (N, C, H, W) after resizing and transform_param, label (N)

    root_folder is prepended to each path without a separator, so it must end with "/".
    Source: BVLC image_data_layer.cpp.
    """

    honours = (*SSD_CROPS, *RESCALES)

    def setup(self, *bottoms: Tensor) -> None:
        opt = self.opt
        self.require(
            (opt.new_height > 0) == (opt.new_width > 0),
            f"new_height is {opt.new_height} and new_width {opt.new_width}; set both or none",
        )
        self.open(self._stream)
        self._log_size("image_data_layer.cpp:90")

    def _stream(self) -> ImageStream:
        opt = self.opt
        transformer = self.transformer()
        self.require(transformer.color is None, "force_color and force_gray are for Data; use is_color")
        log.info("image_data_layer.cpp:38", f"Opening file {opt.source}")
        root = opt.root_folder
        if os.path.isdir(opt.source):
            self.require(
                not root, f'root_folder goes with a list file, but source "{opt.source}" is a folder; remove it'
            )
            root, (lines, _) = os.path.join(opt.source, ""), read_class_folders(opt.source)
        else:
            lines = read_image_list(opt.source)
        if opt.shuffle:
            log.info("image_data_layer.cpp:53", "Shuffling data")
        log.info("image_data_layer.cpp:63", f"A total of {len(lines)} images.")
        stream = ImageStream(lines, transformer, opt.batch_size)
        stream.root, stream.size, stream.color = root, (opt.new_height, opt.new_width), opt.is_color
        stream.shuffle, stream.rand_skip, stream.fast = opt.shuffle, opt.rand_skip, self.spec.data_param.fast_decode
        self.require(opt.new_height > 0 or not stream.fast, "fast_decode needs new_height and new_width; add them")
        return stream


class WindowData(StreamSource, bottoms=0, tops=2):
    """Reads windows of images, resized to crop_size. A fixed share of each batch shows objects, the rest background.

    tops: data (N, 3, crop_size, crop_size), label (N)

    Set `scale` in window_data_param: as in Caffe, transform_param.scale is not applied here.
    Source: Girshick et al., arXiv:1311.2524; BVLC window_data_layer.cpp.
    """

    def setup(self, *bottoms: Tensor) -> None:
        crop, pad, mode = self.spec.transform_param.crop_size, self.opt.context_pad, self.opt.crop_mode
        self.require(crop > 0, "transform_param.crop_size is not set; windows are warped to that size")
        self.require(2 * pad < crop, f"context_pad {pad} on both sides leaves nothing of crop_size {crop}")
        self.require(mode in ("warp", "square"), f'crop_mode is "{mode}", expected "warp" or "square"')
        self.require(0 <= self.opt.fg_fraction <= 1, f"fg_fraction is {self.opt.fg_fraction:g}, expected 0 to 1")
        self.open(self._stream)
        self._log_size("window_data_layer.cpp:177")

    def _stream(self) -> WindowStream:
        opt = self.opt
        transformer = self.transformer()
        param = self.spec.transform_param
        self.require(transformer.color is None, "force_color and force_gray are for Data; windows are in colour")
        for field, _ in param.ListFields():
            fact = f"transform_param.{field.name} is not for windows; remove it"
            self.require(field.number < _OURS, fact)
        if self.spec.transform_param.HasField("scale"):
            log.warning("window_data_layer.cpp", f'layer "{self.name}": scale counts in window_data_param only')
        windows = read_windows(opt.source, opt.root_folder, opt.fg_threshold, opt.bg_threshold)
        return WindowStream(windows, opt, transformer)


class HDF5Data(StreamSource, bottoms=0, tops=(1, None)):
    """Reads rows of datasets from the HDF5 files in a list file. Each top is the dataset of the same name.

    tops: (N, ...) for datasets (rows, ...)

    A batch may span files. With shuffle, each pass has a new order of the files and of the rows in each file.
    Source: BVLC hdf5_data_layer.cpp.
    """

    def setup(self, *bottoms: Tensor) -> None:
        self.require(not self.spec.HasField("transform_param"), "does not transform data; remove transform_param")
        self.open(self._stream)

    def _stream(self) -> RowStream:
        files = read_file_list(self.opt.source)
        return RowStream(files, list(self.spec.top), self.opt.batch_size, self.opt.shuffle, read_arrays)


class ArrayData(StreamSource, bottoms=0, tops=(1, None)):
    """Reads rows of numpy arrays, from .npz files (each top is the array of its name) or one .npy file for each top.

    tops: (N, ...) for arrays (rows, ...). transform_param is applied to the first top, as images (N, C, H, W)

    A batch may span files. With shuffle, each pass has a new order of the files and of the rows in each file.
    """

    def setup(self, *bottoms: Tensor) -> None:
        self.require(bool(self.opt.source), "array_data_param.source names no file")
        self.require(not self.spec.transform_param.mixup, "keeps labels as they are; remove mixup")
        self.open(self._stream)

    def _stream(self) -> RowStream:
        opt, names, files = self.opt, list(self.spec.top), list(self.opt.source)
        transformer = self.transformer() if self.spec.HasField("transform_param") else None
        read = read_npz
        if files[0].endswith(".npy"):
            fact = f"has {len(files)} .npy files for {len(names)} tops; give one for each"
            self.require(len(files) == len(names), fact)
            files, read = files[:1], partial(_several, files)
        stream = RowStream(files, names, opt.batch_size, opt.shuffle, read, transformer)
        if transformer is not None:
            self.require(transformer.color is None, "force_color and force_gray are for Data; remove them")
        return stream


def _several(paths: list[str], path: str, names: list[str]) -> Arrays:
    return read_npy(paths, names)


def normalized(pixels: Tensor, transformer: BatchTransformer) -> Tensor:
    """Normalize a batch of pixels as the transformer's `plain` says; the result is float32, on the pixels' device."""
    x = pixels.to(torch.float32)
    mean, std = (torch.from_numpy(numbers.values).to(x.device) for numbers in (transformer.mean, transformer.std))
    x = x - mean if len(mean) else x
    x = x / std if len(std) else x
    return x * float(transformer.scale) if transformer.scale != 1 else x


def _encoded(state: State) -> bytes:
    return json.dumps(state).encode()


def _tensors(arrays: Arrays, count: int, pin: bool) -> tuple[Tensor, ...]:
    """The first `count` arrays as tensors; with `pin` in pinned memory, for asynchronous copies to a GPU."""
    tensors = tuple(torch.from_numpy(array) for array in arrays[:count])
    return tuple(x.pin_memory() for x in tensors) if pin else tensors
