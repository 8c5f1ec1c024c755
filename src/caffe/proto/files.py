"""Opening files for reading and replacing files safely, with errors that tell what to do."""

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
except ImportError:  # not a Unix
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

_MOST_TEXT = 1 << 28  # bytes; the text of a net of 10,000 layers has a hundredth of it
_PATIENCE = 10.0  # seconds that a pipe may be silent


def read_bytes(path: PathLike) -> bytes:
    """The content of a file, or a `FileError` that tells why it cannot be read."""
    with opened(path) as file:
        return file.read()


def read_text_bytes(path: PathLike) -> bytes:
    """The bytes of a file that holds a net, solver or schema as text; a `FileError` if it is too large for one."""
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
    """Raise an OSError for a device or a socket, reading which may never end, and for a pipe unless `pipes`."""
    mode = os.stat(path).st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        raise OSError(errno.EINVAL, "it is a device or a socket, expected a file")
    if stat.S_ISFIFO(mode) and not pipes:
        raise OSError(errno.EINVAL, "it is a pipe, expected a file; write what comes from it into one")


def _from_pipe(path: PathLike) -> BinaryIO:
    """What is written into a pipe until its writers close it; an OSError when nothing comes for some seconds."""
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
                time.sleep(0.01)  # no writer yet


@contextlib.contextmanager
def opened(path: PathLike) -> Iterator[BinaryIO]:
    """Open a file for reading bytes; every failure while it is open is a `FileError`."""
    try:
        refuse_special(path, pipes=True)
        file = _from_pipe(path) if stat.S_ISFIFO(os.stat(path).st_mode) else open(path, "rb")  # noqa: SIM115 - see below
    except (OSError, ValueError) as error:  # a ValueError here is about the name, one below about the content
        raise _unreadable(path, error) from error
    try:
        with file:
            yield file
    except OSError as error:
        raise _unreadable(path, error) from error


def lines(path: PathLike, what: str) -> list[str]:
    """The lines of a text file without the space around them; bytes that are no UTF-8 become lone surrogates.

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
    """Why a file cannot be opened; a ValueError is about a name that no file can have."""
    if isinstance(error, ValueError):
        return f"no file can have this name ({error})"
    return error.strerror or str(error)


@contextlib.contextmanager
def atomic(path: PathLike) -> Iterator[BinaryIO]:
    """Write a file so that it is there whole or not at all.

    Yields a binary file under a temporary name (`.name`) in the same folder. When the block ends well, the content
    is forced to disk and takes the place of `path`; when it fails, the temporary file is removed and what was at
    `path` stays as it was. A pipe or a device is written directly. Raises `FileError` if the system refuses.
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
    """If the block fails, bring the file at `path` back that was there before, if there was one."""
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
    """Give a file a second name, or a copy where the file system has no links."""
    try:
        os.link(target, second)
    except OSError:
        try:
            shutil.copy2(target, second)
        except OSError as error:
            second.unlink(missing_ok=True)
            raise FileError(f"{target}: cannot be kept: {_why_unwritable(target, error)}") from error


def check_writable(path: PathLike) -> None:
    """Raise, before any work is done, the `FileError` that writing `path` with `atomic` would end in."""
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
    """The file that a path leads to."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError) as error:
        raise FileError(f"{os.fspath(path)!r}: cannot write: {reason(error)}") from error


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[BinaryIO]:
    """A new file beside `target`, with the rights `target` has or would get; removed unless it was renamed."""
    _remove_leftovers(target)
    name = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        with open(name, "x+b") as file:
            with contextlib.suppress(OSError):  # a file system without locks: leftovers then stay
                lock(file)
            if len(os.fsencode(target.name)) > 255:  # the temporary name is shorter
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            if os.path.exists(target):
                os.chmod(name, stat.S_IMODE(target.stat().st_mode))
            yield file
    finally:
        name.unlink(missing_ok=True)


def _remove_leftovers(target: Path) -> None:
    """Remove temporary files of `target` whose writer is gone: killed, it could not do so itself."""
    for leftover in target.parent.glob(f".{glob.escape(target.name[:100])}.????????.tmp"):
        with contextlib.suppress(OSError), open(leftover, "rb") as file:
            lock(file)
            leftover.unlink()


def lock(file: BinaryIO) -> None:
    """Lock the file until it is closed or its process ends; raises OSError if another process holds it."""
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
