"""Shared by `caffe classify` and `caffe detect`: converts flag values to transformer settings."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe.cli import _device
from caffe.data.streams.arrays import DAMAGE
from caffe.errors import CaffeError, FileError
from caffe.proto import weights

if TYPE_CHECKING:
    from caffe.classifier import Classifier
    from caffe.detector import Detector

__all__ = ["number", "numbers", "read_array", "read_mean", "settings", "swap_colors", "transformer"]


def settings(flags: SimpleNamespace) -> dict[str, Any]:
    """Return `mean`, `input_scale`, `raw_scale` and `channel_swap` for a Classifier or Detector.

    Also sets the device.
    """
    if not (flags.model_def and flags.pretrained_model):
        raise CaffeError(
            "Need a model to run: give its prototxt with -model_def, its weights with -pretrained_model (for classify, "
            "-model with a model folder is enough)"
        )
    _device.use(flags.gpu, "caffe", f'"-gpu {flags.gpu}"')
    return {
        "mean": read_mean(flags.mean_file) if flags.mean_file else None,
        "input_scale": number(flags, "input_scale"),
        "raw_scale": number(flags, "raw_scale"),
        "channel_swap": None if flags.channel_swap == "auto" else numbers(flags, "channel_swap"),
    }


def swap_colors(net: Classifier | Detector, flags: SimpleNamespace) -> None:
    """Resolve -channel_swap auto: BGR order if the net takes three channels."""
    name = net.inputs[0]
    if flags.channel_swap == "auto" and net.blobs[name].shape[1] == 3:
        net.transformer.set_channel_swap(name, (2, 1, 0))


def transformer(probe: Any, flags: SimpleNamespace) -> Any:
    """The transformer of images (H, W, C) in 0 .. 1, red first, for a `Probe`, as the flags set it."""
    from caffe import io

    channels = probe.shape[0]
    mover = io.Transformer({probe.input: (1, *probe.shape)})
    mover.set_transpose(probe.input, (2, 0, 1))
    if flags.mean_file:
        mover.set_mean(probe.input, read_mean(flags.mean_file))
    for name, put in (("raw_scale", mover.set_raw_scale), ("input_scale", mover.set_input_scale)):
        value = number(flags, name)
        if value is not None:
            put(probe.input, value)
    swap = (2, 1, 0) if flags.channel_swap == "auto" else numbers(flags, "channel_swap")
    if swap is not None and (channels == 3 or flags.channel_swap != "auto"):
        mover.set_channel_swap(probe.input, swap)
    return mover


def number(flags: SimpleNamespace, name: str) -> float | None:
    """Return the number in a flag, None if the flag is empty."""
    text = getattr(flags, name)
    try:
        return float(text) if text else None
    except ValueError:
        raise CaffeError(f'-{name} "{text}": expected a number') from None


def numbers(flags: SimpleNamespace, name: str) -> list[int] | None:
    """Return the comma-separated integers in a flag; None if the flag is empty."""
    text = getattr(flags, name)
    try:
        return [int(part) for part in text.split(",")] if text else None
    except ValueError:
        raise CaffeError(f'-{name} "{text}": expected whole numbers separated by ","') from None


def read_mean(path: str) -> np.ndarray:
    """Read a mean of shape (C,) or (C, H, W) from a .npy or .binaryproto file."""
    mean = read_array(path) if path.endswith(".npy") else weights.read_mean(path)
    return mean[0] if mean.ndim == 4 else mean


def read_array(path: str) -> np.ndarray:
    """Read the array in a .npy file."""
    try:
        return np.load(Path(path), allow_pickle=False)
    except (OSError, *DAMAGE) as error:
        raise FileError(f"cannot read the array {path}: {error}") from error
