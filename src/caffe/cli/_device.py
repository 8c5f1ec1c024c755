"""Selects the devices of a command from `-gpu`, the solver, and the available devices."""

from __future__ import annotations

import torch

from caffe import log, mode
from caffe.errors import CaffeError

__all__ = ["gpus", "use"]


def gpus(wanted: str) -> list[int]:
    """Return the checked numbers in `-gpu`; none if the flag is not given or PyTorch finds no GPU."""
    if not wanted:
        return []
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "all":
        numbers = list(range(count))
    else:
        try:
            numbers = [int(number) for number in wanted.split(",")]
        except ValueError:
            raise CaffeError(f'-gpu "{wanted}": expected "all" or device numbers separated by ","') from None
    if not count:
        return []
    for number in numbers:
        if not 0 <= number < count:
            raise CaffeError(f"-gpu {wanted}: there is no device {number}; this machine has {count}, counted from 0")
    return numbers


def use(wanted: str, place: str, purpose: str) -> list[int]:
    """Set the mode for new nets, and return the GPUs to use; an empty list means the CPU.

    If `purpose` asks for a GPU but there is none, a warning is logged for the source place `place`.
    """
    numbers = gpus(wanted)
    if wanted and not numbers:
        fact = f"{purpose} asks for a GPU, but PyTorch {torch.__version__} can use none here"
        log.warning(place, f"{fact}: using the CPU")
    if numbers:
        mode.set_device(numbers[0])
        mode.set_mode_gpu()
    else:
        mode.set_mode_cpu()
    return numbers
