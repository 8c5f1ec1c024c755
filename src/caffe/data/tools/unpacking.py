"""Archives of data sets."""

from __future__ import annotations

import tarfile
from pathlib import Path

from caffe.errors import FileError

__all__ = ["unpack"]


def unpack(path: Path, folder: Path) -> None:
    """Unpack an archive into a folder, unless this was done before. Raises FileError for a damaged archive."""
    done = folder / f".{path.name}.unpacked"
    if done.exists():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise FileError(f"cannot unpack {path}: {error}; remove it, and try again") from error
    done.touch()
