"""Shared by the web pages of the monitor and of `caffe try`: addresses, sockets, and checks of requests."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

from caffe.errors import CaffeError

__all__ = ["LOCAL", "address", "guard", "is_foreign", "listening", "security_policy"]

LOCAL = "127.0.0.1"
_TRIES = 50  # ports after the wanted one


def guard(host: str) -> Any:
    """Return Starlette middleware that rejects requests to other host names if `host` is a loopback address."""
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    names = ["localhost", LOCAL, "[::1]", "testserver"] if host in (LOCAL, "localhost", "::1") else ["*"]
    return Middleware(TrustedHostMiddleware, allowed_hosts=names)


def is_foreign(request: Any) -> bool:
    """Whether a request comes from a page of another site."""
    origin = request.headers.get("origin")
    return bool(origin) and urlsplit(origin).netloc != request.headers.get("host")


def security_policy(more: str = "") -> dict[str, str]:
    """Return the HTTP header that allows a page to load files from this server only."""
    policy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; object-src 'none'"
    return {"Content-Security-Policy": policy + more}


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens at the port, or at the next free one. Raises CaffeError if none of 50 is free."""
    problem: OSError | None = None
    for number in range(port, min(port + _TRIES, 65535)) if port else [0]:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            made = socket.socket(family, socket.SOCK_STREAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((host, number))
            made.listen(128)
            return made
        except OSError as error:
            made.close()
            problem = error
    raise CaffeError(f"cannot listen at {host}:{port}: {problem}; give another -host or -port")


def address(host: str, listener: socket.socket) -> str:
    """Return the page's URL for a browser on this machine."""
    name = {"0.0.0.0": LOCAL, "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{listener.getsockname()[1]}/"
