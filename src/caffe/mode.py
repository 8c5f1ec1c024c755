"""Which device new nets and solvers use: Caffe's global mode, `set_mode_cpu`, `set_mode_gpu`, `set_device`."""

from __future__ import annotations

import torch

from caffe import log

__all__ = ["device", "set_device", "set_mode_cpu", "set_mode_gpu", "set_random_seed"]

_gpu = False
_device_id = 0
_warned = False


def set_mode_cpu() -> None:
    """Run on the CPU from now on."""
    global _gpu
    _gpu = False


def set_mode_gpu() -> None:
    """Run on the GPU from now on; where there is none, a warning says so once and the CPU is used."""
    global _gpu
    _gpu = True


def set_device(device_id: int) -> None:
    """Choose the GPU, by its number."""
    global _device_id
    _device_id = device_id


def device() -> torch.device:
    """The device of the current mode."""
    global _warned
    if not _gpu:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", _device_id)
    if not _warned:
        _warned = True
        log.warning("common.cpp:66", "GPU mode is asked for, but no GPU can be used here: running on the CPU instead")
    return torch.device("cpu")


def set_random_seed(seed: int) -> None:
    """Seed every random draw of the package: fillers, dropout, data order and augmentation."""
    torch.manual_seed(seed)
