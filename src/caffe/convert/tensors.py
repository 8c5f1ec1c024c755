"""Files of named tensors: .safetensors, and .pt or .pth with a state dictionary."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from caffe.errors import FileError, require_extra
from caffe.proto import files

__all__ = ["FORMS", "form_of", "read_tensors", "write_tensors"]

FORMS = {
    ".caffemodel": "caffe",
    ".h5": "hdf5",
    ".safetensors": "safetensors",
    ".pt": "torch",
    ".pth": "torch",
}
"""File suffixes and the formats that they mean."""
_INNER = ("state_dict", "model_state_dict", "model", "net", "weights")
_WRAPPERS = ("module.", "_orig_mod.")


def form_of(path: str | Path) -> str:
    """Return the format of a file by its suffix. Raises FileError for an unknown suffix."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMS:
        raise FileError(f"{path}: the name must end in one of {', '.join(FORMS)}, which determines the format")
    return FORMS[suffix]


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors, .pt or .pth file by name, on the CPU. 16-bit numbers become float32.

    The state dictionary can be inside another dictionary ("state_dict", "model"), and a prefix "module." is removed.
    Files with other Python objects are rejected, because reading them would run their code. Raises FileError.
    """
    found = _read_safe(path) if form_of(path) == "safetensors" else _read_torch(path)
    for prefix in _WRAPPERS:
        if found and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    return {name: _plain(value) for name, value in found.items()}


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name, in the format of the file's suffix. On an error, no incomplete file remains."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    if form_of(path) == "safetensors":
        library: Any = require_extra("safetensors.torch", "safetensors", "writing .safetensors")
        content = library.save(plain, {"format": "pt"})
        with files.atomic(path) as file:
            file.write(content)
    else:
        with files.atomic(path) as file:
            torch.save(plain, file)


def _read_safe(path: str | Path) -> dict[str, Tensor]:
    library: Any = require_extra("safetensors.torch", "safetensors", "reading .safetensors")
    try:
        found: dict[str, Tensor] = library.load(files.read_bytes(path))
    except FileError:
        raise
    except Exception as error:  # SafetensorError, and errors of its header
        raise FileError(f"{path}: is not a safetensors file, or damaged: {error}") from error
    return {name: found[name] for name in sorted(found, key=_counting)}


def _counting(name: str) -> list[tuple[int, str]]:
    """A key that sorts names by the numbers in them: features.2 before features.10.

    A .safetensors file does not store the order of the modules, and its library returns the names in a random order.
    """
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _read_torch(path: str | Path) -> dict[str, Tensor]:
    try:
        with files.opened(path) as file:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except FileError:
        raise
    except pickle.UnpicklingError as error:
        raise FileError(
            f"{path}: is damaged, or contains objects other than tensors, which could run code; write it again "
            "with torch.save(model.state_dict(), FILE)"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise FileError(f"{path}: is not a file of torch.save, or is damaged: {str(error).splitlines()[0]}") from error
    for name in _INNER:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
            break
    tensors = (
        {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
        if isinstance(found, Mapping)
        else {}
    )
    if not tensors:
        raise FileError(f"{path}: contains no state dictionary; write it with torch.save(model.state_dict(), FILE)")
    return tensors


def _plain(value: Tensor) -> Tensor:
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
