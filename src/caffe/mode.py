"""Which device new nets and solvers use: Caffe's global mode, `set_mode_cpu`, `set_mode_gpu`, `set_device`."""

from __future__ import annotations

import torch

from caffe import log
from caffe.errors import ArgumentError, as_index, did_you_mean

__all__ = ["chosen", "device", "set_device", "set_mode_cpu", "set_mode_gpu", "set_random_seed"]

_gpu = False
_device_id = 0
_warned = False


def set_mode_cpu() -> None:
    """Run on the CPU from now on."""
    global _gpu
    _gpu = False


def set_mode_gpu() -> None:
    """Use the GPU from now on. If there is none, a warning is logged once and the CPU is used."""
    global _gpu
    _gpu = True


def set_device(device_id: int) -> None:
    """Select the GPU by its number. Raises ArgumentError if the machine has GPUs, but not this one."""
    global _device_id
    number = as_index("set_device: the device", device_id)
    if number < 0:
        raise ArgumentError(f"set_device: the device is {number}, expected its number, counted from 0")
    if torch.cuda.is_available():
        _check_index(number, f"set_device: there is no GPU {number}")
    _device_id = number


def chosen(wanted: torch.device | str | int | None) -> torch.device:
    """The device that `wanted` names, checked; without one that of the current mode.

    Raises ArgumentError for an invalid name, and for a device that this machine or this PyTorch lacks.
    """
    if wanted is None:
        return device()
    try:
        found = torch.device(f"cuda:{wanted}" if isinstance(wanted, int) else wanted)
    except (RuntimeError, TypeError):
        hint = did_you_mean(str(wanted).partition(":")[0].ljust(4, "a"), ("cpu", "cuda", "meta"))
        raise ArgumentError(
            f'the device is {wanted!r}{hint}; expected "cpu", "cuda", or a name such as "cuda:1"'
        ) from None
    if found.type == "cuda":
        if not torch.cuda.is_available():
            raise ArgumentError(
                f'the device is "{found}", but PyTorch {torch.__version__} cannot use a GPU here; omit it or use '
                '"cpu"; `caffe device_query` lists the devices'
            )
        _check_index(found.index or 0, f'there is no device "{found}"')
    elif found.type not in ("cpu", "meta"):
        try:
            torch.empty(0, device=found)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            text = str(error).partition("\n")[0]
            raise ArgumentError(f'the device "{found}" cannot be used here: {text}; omit it or use "cpu"') from None
    return found


def _check_index(index: int, fact: str) -> None:
    count = torch.cuda.device_count()
    if index >= count:
        raise ArgumentError(f"{fact}: this machine has {count}, counted from 0")


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
