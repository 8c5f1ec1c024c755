"""Downloads files: resumes after a break, verifies checksums, tries several mirrors, and reports one clear error."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from caffe import log
from caffe.errors import FileError

__all__ = ["cache_folder", "checksum", "download"]

Progress = Callable[[int, int], None]
"""Called with the number of bytes received and the file size (0 if unknown)."""

_PIECE = 1 << 16
_TRIES = 3  # breaks in a row without any further byte
_TIMEOUT = 30.0
_KINDS = {32: "md5", 40: "sha1", 64: "sha256"}


class _Broken(Exception):
    """The connection ended before the end of the file."""


def cache_folder() -> Path:
    """Return the folder for downloads: CAFFE_CACHE, or `caffe` in the user's cache folder."""
    if own := os.environ.get("CAFFE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "caffe"


def checksum(path: str | Path, kind: str) -> str:
    """Compute the md5, sha1 or sha256 of a file."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def download(urls: Sequence[str], path: str | Path, wanted: str = "", progress: Progress = lambda *_: None) -> Path:
    """Download a file from the first of `urls` that provides the right content. An existing correct file is kept.

    `wanted` is its md5, sha1 or sha256. After a break, the received bytes stay in PATH.part and the next attempt
    requests the rest. Raises FileError with the result of each URL and the path at which the user can put the file.
    """
    target, kind = Path(path), _kind(wanted)
    if target.is_file():
        if not kind or checksum(target, kind) == wanted.lower():
            return target
        raise FileError(f'"{target}" is there, but its {kind} is not {wanted}; remove it to download it again')
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    failures = []
    for url in urls:
        try:
            _fetch(url, part, progress)
        except (OSError, http.client.HTTPException, _Broken, ValueError) as error:
            failures.append(f"{url}: {_reason(error)}")
            continue
        found = checksum(part, kind) if kind else ""
        if found == wanted.lower():
            os.replace(part, target)
            return target
        part.unlink()
        failures.append(f"{url}: returned another file: its {kind} is {found}, expected {wanted}")
    raise FileError(
        f'cannot download "{target.name}": {"; ".join(failures) or "there is no address for it"}. '
        f'Download the file in another way, and put it at "{target}"'
    )


def _kind(wanted: str) -> str:
    if wanted and len(wanted) not in _KINDS:
        raise FileError(f'"{wanted}" is not a checksum: expected an md5, sha1 or sha256 of 32, 40 or 64 digits')
    return _KINDS[len(wanted)] if wanted else ""


def _fetch(url: str, part: Path, progress: Progress) -> None:
    """Complete the file `part`, with further requests after breaks."""
    idle = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _request(url, part, before, progress)
            return
        except (_Broken, http.client.IncompleteRead, ConnectionError, TimeoutError) as error:
            now = part.stat().st_size if part.exists() else 0
            idle = 0 if now > before else idle + 1
            if idle == _TRIES:
                raise _Broken(f"the connection breaks off after {now:,} bytes ({_reason(error)})") from error
            log.info("download", f"{url}: broke off after {now:,} bytes; asking for the rest")


def _request(url: str, part: Path, begin: int, progress: Progress) -> None:
    """Make one request for the rest of the file, or for all of it if the server does not support ranges."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={begin}-"} if begin else {})
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and begin:  # no bytes remain: the file is complete, or has changed on the server
            if f"*/{begin}" in (error.headers.get("Content-Range") or ""):
                return
            part.unlink()
            raise _Broken("the server has a shorter file") from error
        raise
    with answer:
        resumed = begin > 0 and answer.status == 206
        length = answer.headers.get("Content-Length")
        done = begin if resumed else 0
        total = done + int(length) if length else 0
        with open(part, "ab" if resumed else "wb") as file:
            while piece := answer.read(_PIECE):
                file.write(piece)
                done += len(piece)
                progress(done, total)
    if total and done < total:
        raise _Broken(f"received {done:,} of {total:,} bytes")


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return f"cannot be reached ({error.reason})"
    return str(error) or type(error).__name__
