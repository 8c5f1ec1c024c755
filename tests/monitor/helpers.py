"""Logs and servers for the tests of the monitor."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from caffe.monitor.board import Board

HEAD = """I1129 10:00:00.000000 1 solver.cpp:45] Initializing solver from parameters:
base_lr: {rate}
max_iter: {most}
test_iter: 2
test_iter: 3
I1129 10:00:00.000000 1 solver.cpp:102] Creating training net from net file: net.prototxt
I1129 10:00:00.000000 1 net.cpp:53] Initializing net from parameters:
name: "Tiny"
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param {{ num_output: 5 }} }}
I1129 10:00:00.000000 1 net.cpp:86] Creating Layer data
I1129 10:00:00.000000 1 net.cpp:382] data -> data
I1129 10:00:00.000000 1 net.cpp:131] Top shape: 2 3 (6)
I1129 10:00:00.000000 1 net.cpp:86] Creating Layer ip
I1129 10:00:00.000000 1 net.cpp:382] ip -> ip
I1129 10:00:00.000000 1 net.cpp:131] Top shape: 2 5 (10)
I1129 10:00:00.000000 1 solver.cpp:289] Solving Tiny
"""
DONE = "I1129 11:00:00.000000 1 solver.cpp:332] Optimization Done.\n"


def head(rate: float = 0.1, most: int = 1000) -> str:
    """Return the first lines of a log."""
    return HEAD.format(rate=rate, most=most)


def lines(iteration: int, loss: float, rate: float = 0.1) -> str:
    """Return the log lines of an iteration; ten iterations take a second."""
    seconds = iteration // 10
    stamp = f"I1129 {10 + seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{iteration % 10}00000 1"
    return (
        f"{stamp} solver.cpp:239] Iteration {iteration} (10 iter/s, 1s/10 iters), loss = {loss:.6g}\n"
        f"{stamp} solver.cpp:258]     Train net output #0: loss = {loss:.6g} (* 1 = {loss:.6g} loss)\n"
        f"{stamp} sgd_solver.cpp:112] Iteration {iteration}, lr = {rate:g}\n"
    )


def log(path: Path, count: int, step: int = 10, rate: float = 0.1) -> Path:
    """Return a log of `count` reports."""
    path.write_text(head(rate, count * step) + "".join(lines(i * step, 2 / (1 + i)) for i in range(count)))
    return path


def read_all(board: Board) -> Board:
    """Read until no new data are found."""
    while board.read()[1]:
        pass
    return board


@contextmanager
def served(board: Board) -> Iterator[str]:
    """Run a server that shows the board; yield its address."""
    from caffe.monitor.server import server as server_of
    from caffe.web import address, listening

    listener = listening("127.0.0.1", 0)
    server = server_of(board)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    board.start()
    try:
        until = time.monotonic() + 10
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        yield address("127.0.0.1", listener)
    finally:
        server.should_exit = True
        thread.join()
        board.close()
        listener.close()


def fetch(url: str, data: bytes | None = None, **headers: str) -> Any:
    """Return the response of an address: bytes, or the decoded JSON. The text of an error is returned as well."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=120) as answer:
            kind, content = answer.headers["content-type"], answer.read()
    except urllib.error.HTTPError as error:
        kind, content = error.headers.get("content-type", ""), error.read()
        error.close()
    return json.loads(content) if "json" in kind else content
