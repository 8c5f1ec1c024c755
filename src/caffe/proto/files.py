"""Reads files and replaces files safely. Errors say what to do."""

from __future__ import annotations

import contextlib
import errno
import glob
import io
import os
import secrets
import select
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from caffe.errors import FileError, did_you_mean

try:
    import fcntl
except ImportError:  # not a Unix system
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "atomic",
    "check_writable",
    "lines",
    "lock",
    "opened",
    "put_back",
    "read_bytes",
    "read_text_bytes",
    "reason",
    "refuse_special",
]

PathLike = str | os.PathLike[str]

_MOST_TEXT = 1 << 28  # bytes; the text of a net with 10,000 layers has a hundredth of this
_PATIENCE = 10.0  # seconds to wait for data from a pipe


def read_bytes(path: PathLike) -> bytes:
    """Read the content of a file. Raises a `FileError` with the reason if it cannot be read."""
    with opened(path) as file:
        return file.read()


def read_text_bytes(path: PathLike) -> bytes:
    """Read a text file that holds a net, solver or schema. Raises a `FileError` if it is too large for one."""
    with opened(path) as file:
        content = file.read(_MOST_TEXT + 1)
    if len(content) > _MOST_TEXT:
        size = os.stat(path).st_size or f"more than {_MOST_TEXT}"
        raise FileError(
            f"{os.fspath(path)}: has {size} bytes, expected a text of at most {_MOST_TEXT}; if it holds weights, save "
            "them as a .caffemodel"
        )
    return content


def refuse_special(path: PathLike, pipes: bool = False) -> None:
    """Raise an OSError for a device or socket, which may never end, and for a pipe unless `pipes` is true."""
    mode = os.stat(path).st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        raise OSError(errno.EINVAL, "it is a device or a socket, expected a file")
    if stat.S_ISFIFO(mode) and not pipes:
        raise OSError(errno.EINVAL, "it is a pipe, expected a file; write what comes from it into one")


def _from_pipe(path: PathLike) -> BinaryIO:
    """Read from a pipe until its writers close it. Raises an OSError if no data arrives for some seconds."""
    content, waited = io.BytesIO(), time.monotonic() + _PATIENCE
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as pipe:
        while True:
            ready, *_ = select.select([pipe], [], [], max(0.0, waited - time.monotonic()))
            piece = pipe.read(1 << 16) if ready else None
            if piece:
                content.write(piece)
                waited = time.monotonic() + _PATIENCE
            elif piece == b"" and content.tell():
                content.seek(0)
                return content
            elif time.monotonic() >= waited:
                raise OSError(errno.EAGAIN, f"it is a pipe into which nothing was written for {_PATIENCE:g} seconds")
            else:
                time.sleep(0.01)  # no writer has opened the pipe yet


@contextlib.contextmanager
def opened(path: PathLike) -> Iterator[BinaryIO]:
    """Open a file for reading bytes. Any failure while it is open becomes a `FileError`."""
    try:
        refuse_special(path, pipes=True)
        file = _from_pipe(path) if stat.S_ISFIFO(os.stat(path).st_mode) else open(path, "rb")  # noqa: SIM115 - see below
    except (OSError, ValueError) as error:  # a ValueError here concerns the name, one below the content
        raise _unreadable(path, error) from error
    try:
        with file:
            yield file
    except OSError as error:
        raise _unreadable(path, error) from error


def lines(path: PathLike, what: str) -> list[str]:
    """Return the stripped lines of a text file. Bytes that are not UTF-8 become lone surrogates.

    `what` names the file in the `FileError`.
    """
    try:
        refuse_special(path)
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return [line.strip() for line in file]
    except (OSError, ValueError) as error:
        fact = f'cannot open the {what} "{os.fspath(path)}": {reason(error)}'
        raise FileError(f"{fact} (from {os.getcwd()})") from error


def reason(error: OSError | ValueError) -> str:
    """Return why a file cannot be opened. A ValueError is about an invalid file name."""
    if isinstance(error, ValueError):
        return f"no file can have this name ({error})"
    return error.strerror or str(error)


@contextlib.contextmanager
def atomic(path: PathLike) -> Iterator[BinaryIO]:
    """Write a file so that it appears complete or not at all.

    Yields a binary file with a temporary name (`.name`) in the same folder. If the block succeeds, the content is
    flushed to disk and the file is renamed to `path`. If it fails, the temporary file is removed and the file at `path`
    is unchanged. Pipes and devices are written directly. Raises `FileError` if the system refuses.
    """
    target = _target(path)
    try:
        if os.path.exists(target) and not os.path.isfile(target):
            with open(target, "wb") as device:
                yield device
            return
        with _temporary(target) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, target)
    except OSError as error:
        raise FileError(f"{os.fspath(path)}: cannot write: {_why_unwritable(target, error)}") from error


@contextlib.contextmanager
def put_back(path: PathLike) -> Iterator[None]:
    """If the block fails, restore the file that was at `path` before, if there was one."""
    target = _target(path)
    kept = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.old")
    if os.path.isfile(target):
        _link(target, kept)
    try:
        yield
    except BaseException:
        if os.path.exists(kept):
            os.replace(kept, target)
        raise
    finally:
        kept.unlink(missing_ok=True)


def _link(target: Path, second: Path) -> None:
    """Create a second name for a file: a hard link, or a copy if the file system has no links."""
    try:
        os.link(target, second)
    except OSError:
        try:
            shutil.copy2(target, second)
        except OSError as error:
            second.unlink(missing_ok=True)
            raise FileError(f"{target}: cannot be kept: {_why_unwritable(target, error)}") from error


def check_writable(path: PathLike) -> None:
    """Raise the `FileError` that writing `path` with `atomic` would raise, before any work is done."""
    target = _target(path)
    try:
        if os.path.isdir(target):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if os.path.isfile(target) or not os.path.exists(target):
            with _temporary(target):
                pass
    except OSError as error:
        raise FileError(f"{os.fspath(path)}: cannot write: {_why_unwritable(target, error)}") from error


def _target(path: PathLike) -> Path:
    """Return the file that a path refers to, following links."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError) as error:
        raise FileError(f"{os.fspath(path)!r}: cannot write: {reason(error)}") from error


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[BinaryIO]:
    """Create a file beside `target`, with the permissions that `target` has or would get.

    Removed unless it was renamed.
    """
    _remove_leftovers(target)
    name = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        with open(name, "x+b") as file:
            with contextlib.suppress(OSError):  # the file system does not support locks, so leftovers stay
                lock(file)
            if len(os.fsencode(target.name)) > 255:  # the temporary name must not be too long
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            if os.path.exists(target):
                os.chmod(name, stat.S_IMODE(target.stat().st_mode))
            yield file
    finally:
        name.unlink(missing_ok=True)


def _remove_leftovers(target: Path) -> None:
    """Remove temporary files of `target` whose writer was killed and could not remove them."""
    for leftover in target.parent.glob(f".{glob.escape(target.name[:100])}.????????.tmp"):
        with contextlib.suppress(OSError), open(leftover, "rb") as file:
            lock(file)
            leftover.unlink()


def lock(file: BinaryIO) -> None:
    """Lock the file until it is closed or its process ends. Raises OSError if another process holds the lock."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unreadable(path: PathLike, error: OSError | ValueError) -> FileError:
    return FileError(f"{os.fspath(path)}: cannot read: {_why_unreadable(Path(path), error)}")


def _why_unreadable(path: Path, error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        folder = path.parent
        if not os.path.isdir(folder):
            return f'there is no folder "{folder}" (current folder: {os.getcwd()})'
        return f"file not found{did_you_mean(path.name, _names(folder))}"
    if os.path.isdir(path):
        return "it is a folder, expected a file"
    if isinstance(error, PermissionError):
        return "permission denied; check the file's owner and mode"
    return reason(error)


def _why_unwritable(target: Path, error: OSError) -> str:
    if os.path.isdir(target):
        return "it is a folder; give the name of a file"
    if not os.path.isdir(target.parent):
        return f'there is no folder "{target.parent}"; create it first'
    if isinstance(error, PermissionError):
        return f'permission denied in "{target.parent}"'
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = shutil.disk_usage(target.parent).free / 1e6
        kept = "the old file is unchanged" if os.path.exists(target) else "nothing was left behind"
        return f"{error.strerror or error} ({free:.0f} MB free); free some space or write to another disk; {kept}"
    return error.strerror or str(error)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
