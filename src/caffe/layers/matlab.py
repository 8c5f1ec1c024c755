"""DeepLab's layers that write blobs to MATLAB files and read them again."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caffe import log
from caffe.layers.base import Effects, Layer, Source, has_values, shape_text
from caffe.layers.support.matfile import read_array, write_array
from caffe.layers.support.values import untraced
from caffe.proto import files

__all__ = ["MatRead", "MatWrite"]


def _names(layer: Layer, opt: Any) -> list[str]:
    """The names in the file `source`, each without its last `strip` characters."""
    layer.require(opt.strip >= 0, f"strip is {opt.strip}, expected 0 or more")
    first = [line.split()[0] for line in files.lines(opt.source, "source") if line]
    layer.require(bool(first), f"source {opt.source} is empty; expected one name per line")
    for name in first:
        fact = f'strip: {opt.strip} leaves nothing of "{name}" in {opt.source}'
        layer.require(len(name) > opt.strip, fact)
    return [name[: len(name) - opt.strip] for name in first]


class MatWrite(Layer, bottoms=(1, None), tops=0):
    """Writes its bottoms to MATLAB files, one for each bottom and run.

    bottoms x of up to 4 axes; no top

    The file of bottom i is {prefix}{name}_blob_{i}.mat, with an array "data" of W x H x C x N numbers. The name is the
    line of the run in `source` without its last `strip` characters; without `source`, it is iter_{run}. Only every
    `period`-th run writes. A missing source is an error with the first run only. iter has no effect, as in the source.
    Source: Chen et al., arXiv:1412.7062 (DeepLab), mat_write_layer.cpp, matio_io.cpp.
    """

    effects = Effects.CALLS
    without_effect = ("iter",)

    def setup(self, *bottoms: Tensor) -> None:
        self.require(self.opt.period > 0, f"period is {self.opt.period}, expected a positive number")
        for index, x in enumerate(bottoms):
            self.require(
                x.dim() <= 4, f"{self.bottom_name(index)} has shape {shape_text(x.shape)}, expected at most 4 axes"
            )
        self.run, self.names = 0, list[str]()

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        untraced(self._write)(*bottoms)
        return ()

    def _write(self, *bottoms: Tensor) -> None:
        if not all(map(has_values, bottoms)):
            return
        run, self.run = self.run, self.run + 1
        if run % self.opt.period:
            return
        name = f"iter_{run}"
        if self.opt.source:
            self.names = self.names or _names(self, self.opt)
            fact = f"run {run + 1} has no line in {self.opt.source}, which has {len(self.names)}"
            self.require(run < len(self.names), fact)
            name = self.names[run]
        for index, x in enumerate(bottoms):
            path = f"{self.opt.prefix}{name}_blob_{index}.mat"
            write_array(path, x.detach().float().cpu().reshape(*x.shape, *[1] * (4 - x.dim())).numpy())
            log.info("mat_write_layer.cpp", f"Wrote {path}")


class MatRead(Source, bottoms=0, tops=(1, None)):
    """Reads its tops from MATLAB files, such as MatWrite writes.

    tops x (batch_size, C, H, W), each of the size of its first file

    Item n of top i is the array "data", W x H x C, of {prefix}{name}_blob_{i}.mat, with names as for MatWrite. After
    the last line of `source`, reading starts again at the first. iter and reshape have no effect, as in the source.
    Source: Chen et al., arXiv:1412.7062 (DeepLab), mat_read_layer.cpp, matio_io.cpp.
    """

    without_effect = ("iter", "reshape")

    def setup(self, *bottoms: Tensor) -> None:
        opt = self.opt
        self.require(opt.batch_size > 0, f"batch_size is {opt.batch_size}, expected a positive number")
        self.names = _names(self, opt) if opt.source else []
        self.batch, self.next = self.own_batch(opt.batch_size), 0
        self.shapes = [(self.batch, *self._read(0, index).shape) for index in range(len(self.spec.top))]

    def deliver(self) -> tuple[Tensor, ...]:
        runs = range(self.next, self.next + self.batch)
        tops = []
        for index, shape in enumerate(self.shapes):
            items = [self._read(run, index) for run in runs]
            for run, item in zip(runs, items, strict=True):
                fact = (
                    f"{self._path(run, index)} has {shape_text(item.shape)} numbers, expected {shape_text(shape[1:])}"
                )
                self.require(item.shape == shape[1:], fact)
            tops.append(torch.from_numpy(np.stack(items)))
        self.next = runs.stop % len(self.names) if self.names else runs.stop
        return tuple(tops)

    def position(self) -> bytes:
        return json.dumps({"run": self.next}).encode()

    def seek(self, position: bytes) -> None:
        self.next = json.loads(position)["run"] if position else 0

    def _path(self, run: int, index: int) -> str:
        name = self.names[run % len(self.names)] if self.names else f"iter_{run}"
        return f"{self.opt.prefix}{name}_blob_{index}.mat"

    def _read(self, run: int, index: int) -> np.ndarray:
        """The array (C, H, W) of a top."""
        path = self._path(run, index)
        try:
            found = read_array(path)
        except (OSError, ValueError) as error:
            fact = files.reason(error) if isinstance(error, OSError) else error
            self.error(f"{path}: {fact}" if isinstance(error, OSError) else f"{path} {fact}")
        shape = (*[1] * (4 - found.ndim), *found.shape)
        fact = f"{path} has {shape_text(found.shape)} numbers, expected the numbers of one item with up to 3 axes"
        self.require(len(shape) == 4 and shape[0] == 1, fact)
        return found.reshape(shape[1:]).astype(np.float32)
