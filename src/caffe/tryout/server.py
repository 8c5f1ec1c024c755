"""The web server of `caffe try`: serves the page, and classifies uploaded pictures."""

from __future__ import annotations

import base64
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np

import caffe.monitor
from caffe.errors import ArgumentError, CaffeError, DataError, require_extra
from caffe.opencv import cv2
from caffe.tryout.explain import Explainer, heat_picture
from caffe.tryout.upload import LARGEST, read_upload
from caffe.web import LOCAL, guard, is_foreign, security_policy

__all__ = ["application", "serve", "server"]

_PAGE = Path(__file__).with_name("page")
_SHARED = Path(caffe.monitor.__file__).with_name("page")
_SHOWN = 10  # number of classes that the page shows
_LARGEST_SIDE = 480  # largest side of the picture that is sent back


def application(explainer: Explainer, host: str = LOCAL) -> Any:
    """Create the ASGI application of the page for one classifier."""
    applications: Any = require_extra("starlette.applications", "monitor", "caffe try")
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import FileResponse, JSONResponse
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    async def page(request: Any) -> Any:
        return FileResponse(_PAGE / "try.html", headers=security_policy())

    async def model(request: Any) -> Any:
        return JSONResponse(_model(explainer))

    async def answer(request: Any) -> Any:
        if is_foreign(request):
            return JSONResponse({"error": "this request came from another site's page"}, 403)
        try:
            data = await _body(request)
            found = await run_in_threadpool(_answer, explainer, data, request.query_params.get("class", ""))
        except CaffeError as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse(found, headers={"Cache-Control": "no-store"})

    routes = [
        Route("/", page),
        Route("/api/model", model),
        Route("/api/answer", answer, methods=["POST"]),
        Mount("/page", StaticFiles(directory=_PAGE)),
        Mount("/shared", StaticFiles(directory=_SHARED)),
    ]
    return applications.Starlette(routes=routes, middleware=[guard(host)])


async def _body(request: Any) -> bytes:
    """Read the body of a request. Reading stops as soon as the body is larger than allowed."""
    pieces, size = [], 0
    async for piece in request.stream():
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST:
            raise DataError(
                f"the file is too large: at most {LARGEST / 1e6:.0f} MB are allowed; reduce the size of the picture"
            )
    return b"".join(pieces)


def _model(explainer: Explainer) -> dict[str, Any]:
    channels, height, width = explainer.probe.shape
    return {
        "name": explainer.name,
        "classes": explainer.labels,
        "takes": f"{width} x {height} pixels, {'grey' if channels == 1 else 'colours'}",
        "files": [str(path) for path in explainer.files],
        "largest": LARGEST,
    }


def _answer(explainer: Explainer, data: bytes, target: str) -> dict[str, Any]:
    if target and not target.isdecimal():
        raise ArgumentError(f'class "{target}": expected the number of a class')
    upload = read_upload(data)
    begun = time.perf_counter()
    found = explainer.answer(upload.pixels, int(target) if target else None)
    order = np.argsort(-found.probabilities, kind="stable")
    shown = [int(number) for number in order[:_SHOWN]]
    if found.target not in shown:
        shown.append(found.target)
    return {
        "classes": [
            {"number": each, "name": explainer.labels[each], "probability": float(found.probabilities[each])}
            for each in shown
        ],
        "others": len(order) - len(shown),
        "target": found.target,
        "method": found.method,
        "seen": _picture(_enlarged(found.seen, cv2.INTER_NEAREST)),
        "heat": _picture(heat_picture(_enlarged(found.heat, cv2.INTER_LINEAR))),
        "size": [upload.pixels.shape[1], upload.pixels.shape[0]],
        "notes": upload.notes,
        "seconds": time.perf_counter() - begun,
    }


def _enlarged(pixels: np.ndarray, how: int) -> np.ndarray:
    """Enlarge small pictures by a whole factor."""
    times = max(1, _LARGEST_SIDE // max(pixels.shape[:2]))
    return pixels if times == 1 else cv2.resize(pixels, None, fx=times, fy=times, interpolation=how)


def _picture(pixels: np.ndarray) -> str:
    """Encode pixels as a data URL of a PNG."""
    _, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()


def server(explainer: Explainer, host: str = LOCAL) -> Any:
    """Create a uvicorn.Server of the page."""
    uvicorn: Any = require_extra("uvicorn", "monitor", "caffe try")
    config = uvicorn.Config(
        application(explainer, host), log_level="warning", access_log=False, timeout_graceful_shutdown=3
    )
    return uvicorn.Server(config)


def serve(explainer: Explainer, host: str, listener: socket.socket) -> None:
    """Serve the page until the process is interrupted."""
    server(explainer, host).run(sockets=[listener])
