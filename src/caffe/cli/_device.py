"""Which devices a command runs on: what `-gpu` and the solver ask for, and what there is."""

from __future__ import annotations

import torch

from caffe import log, mode
from caffe.errors import CaffeError

__all__ = ["gpus", "use"]


def gpus(wanted: str) -> list[int]:
    """The numbers that `-gpu` lists, checked; none where nothing is asked for or PyTorch sees no GPU at all."""
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
    """Set the mode that new nets follow, and return the GPUs to use: none means the CPU.

    A GPU that is wanted (by `purpose`) where there is none is a warning under the log place `place`.
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
