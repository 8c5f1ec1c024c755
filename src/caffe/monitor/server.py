"""The web server of the monitor: the page, and its data requests."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from caffe.errors import CaffeError, require_extra
from caffe.monitor import views
from caffe.monitor.board import Board
from caffe.monitor.run import Run
from caffe.monitor.system import System
from caffe.web import LOCAL, guard, is_foreign, security_policy

__all__ = ["application", "serve", "server"]

_PAGE = Path(__file__).with_name("page")
_TOGETHER, _ALIVE = 0.4, 15.0  # seconds: collecting of changes before sending, and interval of keep-alive messages


def application(board: Board, host: str = LOCAL) -> Any:
    """Create the ASGI application that shows a board. It only reads the board; the caller starts and closes it."""
    applications: Any = require_extra("starlette.applications", "monitor", "caffe monitor")
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    answers = _Answers(board)

    @asynccontextmanager
    async def living(app: Any) -> AsyncIterator[None]:
        answers.news.loop = asyncio.get_running_loop()
        board.listeners.append(answers.news.tell)
        yield
        board.listeners.remove(answers.news.tell)

    routes: list[Any] = [Route("/", answers.page), Route("/api/events", answers.events)]
    routes += [Route(f"/api/{name}", answers.answering(view)) for name, view in answers.views.items()]
    routes += [Route("/api/doctor", answers.answering(answers.doctor), methods=["POST"])]
    routes += [Mount("/page", StaticFiles(directory=_PAGE))]
    made = applications.Starlette(routes=routes, lifespan=living, middleware=[guard(host)])
    made.state.close = answers.news.close
    return made


class _News:
    """Notifies open pages of changed runs. `tell` is called in the board's thread."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.waiting: dict[asyncio.Event, set[int]] = {}
        self.closing = False

    def tell(self, changed: set[int]) -> None:
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._wake, changed)

    def _wake(self, changed: set[int]) -> None:
        for event, pending in self.waiting.items():
            pending |= changed
            event.set()

    def close(self) -> None:
        """Close the streams, because the server waits for them before it stops."""
        self.closing = True
        for event in self.waiting:
            event.set()

    async def follow(self) -> AsyncIterator[str]:
        """Stream server-sent events with the numbers of the changed runs."""
        event, pending = asyncio.Event(), set[int]()
        self.waiting[event] = pending
        try:
            yield "retry: 2000\n\n"
            while not self.closing:
                try:
                    await asyncio.wait_for(event.wait(), _ALIVE)
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                if not self.closing:
                    await asyncio.sleep(_TOGETHER)
                changed = sorted(pending)
                pending.clear()
                event.clear()
                yield f"data: {json.dumps(changed)}\n\n"
        finally:
            del self.waiting[event]


class _Answers:
    """The endpoints. A view takes the query and runs in a thread; a CaffeError becomes an error message."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.news = _News()
        self.system = System()
        self.views: dict[str, Callable[[Any], Any]] = {
            "runs": self._runs,
            "run": lambda query: views.detail(self._one(query)),
            "curves": self._curves,
            "histograms": lambda query: views.histograms(self._one(query), query.get("tag", "")),
            "image": lambda query: views.image(self._one(query), query.get("tag", ""), _whole(query, "number", 0)),
            "confusion": lambda query: views.confusion(self._one(query), _whole(query, "number", 0)),
            "net": lambda query: views.net_picture(self._one(query)),
            "table": lambda query: views.table(self._some(query), query.get("tag", "")),
            "system": lambda query: self.system.load(),
        }

    async def page(self, request: Any) -> Any:
        """The page."""
        from starlette.responses import FileResponse

        return FileResponse(_PAGE / "monitor.html", headers=security_policy())

    async def events(self, request: Any) -> Any:
        """The stream of changes."""
        from starlette.responses import StreamingResponse

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self.news.follow(), media_type="text/event-stream", headers=headers)

    def answering(self, view: Callable[[Any], Any]) -> Any:
        """Create the endpoint of a view."""
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import JSONResponse, Response

        async def answer(request: Any) -> Any:
            if request.method == "POST" and is_foreign(request):
                return JSONResponse({"error": "this request came from another site's page"}, 403)
            try:
                made = await run_in_threadpool(view, request.query_params)
            except CaffeError as error:
                return JSONResponse({"error": str(error)}, 404)
            headers = {"Cache-Control": "no-store"}
            if isinstance(made, bytes):
                kind = {b"\x89PNG": "image/png", b"<?xm": "image/svg+xml"}.get(made[:4], "application/octet-stream")
                return Response(made, media_type=kind, headers=headers)
            if isinstance(made, str):
                return Response(made, media_type="text/csv", headers=headers)
            return JSONResponse(made, headers=headers)

        return answer

    def doctor(self, query: Any) -> dict[str, Any]:
        """Run the doctor on a run's log, in a separate process."""
        run = self._one(query)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "findings.json")
            words = [sys.executable, "-m", "caffe", "doctor", "-log", str(run.path), "-json", str(out)]
            done = subprocess.run(words, capture_output=True, text=True, timeout=300)
            if not out.exists():
                raise CaffeError(done.stderr.strip() or f"caffe doctor ended with the code {done.returncode}")
            found: dict[str, Any] = json.loads(out.read_bytes())
            return found

    def _runs(self, query: Any) -> dict[str, Any]:
        wanted = self._some(query)
        rows = [views.row(run) for run in wanted]
        return {"runs": rows, "all": len(self.board.runs), "paths": [str(path) for path in self.board.paths]}

    def _curves(self, query: Any) -> bytes:
        axis = query.get("axis", "iterations")
        if axis not in ("iterations", "seconds"):
            raise CaffeError(f'axis is "{axis}", expected iterations or seconds')
        low, high = _number(query, "low"), _number(query, "high")
        return views.curves(self._some(query), query.get("tag", ""), axis, low, high, _whole(query, "columns", 600))

    def _one(self, query: Any) -> Run:
        number, runs = _whole(query, "run", -1), self.board.runs
        if not 0 <= number < len(runs):
            raise CaffeError(f"there is no run {number}; expected 0 to {len(runs) - 1}")
        return runs[number]

    def _some(self, query: Any) -> Sequence[Run]:
        runs, text = list(self.board.runs), query.get("runs")
        if text is None:
            return runs
        return [runs[int(word)] for word in text.split(",") if word.isdecimal() and int(word) < len(runs)]


def _number(query: Any, name: str) -> float | None:
    text = query.get(name)
    try:
        value = None if text in (None, "") else float(text)
    except ValueError:
        raise CaffeError(f'{name} is "{text}", expected a number') from None
    if value is not None and not abs(value) < 1e15:
        raise CaffeError(f"{name} is {value}, expected a number below 1e15")
    return value


def _whole(query: Any, name: str, default: int) -> int:
    value = _number(query, name)
    return default if value is None else int(value)


def server(board: Board, host: str = LOCAL) -> Any:
    """Create a uvicorn.Server that shows a board."""
    uvicorn: Any = require_extra("uvicorn", "monitor", "caffe monitor")
    app = application(board, host)

    class Server(uvicorn.Server):  # type: ignore[misc]
        async def shutdown(self, sockets: Any = None) -> None:
            app.state.close()
            await super().shutdown(sockets)

        async def main_loop(self) -> None:
            """Look for the end of the server twice a second. The base does so ten times, which keeps a core awake."""
            tenths = 0
            while not await self.on_tick(tenths):
                tenths = (tenths + 5) % 864000
                await asyncio.sleep(0.5)

    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=3, lifespan="on")
    return Server(config)


def serve(board: Board, host: str, listener: socket.socket) -> None:
    """Read the runs and serve the page until the process is interrupted."""
    made = server(board, host)
    board.start()
    try:
        made.run(sockets=[listener])
    finally:
        board.close()
