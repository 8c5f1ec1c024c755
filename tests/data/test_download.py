"""Downloads from a server that closes the connection, sends a wrong length or a wrong file, or does not exist."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from caffe.data.tools.download import cache_folder, download
from caffe.errors import FileError

CONTENT = bytes(range(256)) * 1000
SHA1 = hashlib.sha1(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Paths: /good, /breaks (always after 100,000 bytes), /norange, /long and /short (wrong Content-Length), /wrong."""

    asked: list[tuple[str, str]] = []

    def do_GET(self):
        part = self.headers.get("Range", "")
        self.asked.append((self.path, part))
        name = self.path.strip("/")
        if name == "missing":
            self.send_error(404)
            return
        content = CONTENT[::-1] if name == "wrong" else CONTENT
        begin = int(part.removeprefix("bytes=").rstrip("-")) if part and name != "norange" else 0
        if begin >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        rest = content[begin:]
        stated = len(rest) + {"long": 5000, "short": -5000}.get(name, 0)
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(stated))
        self.end_headers()
        limit = 100_000 if name in ("breaks", "norange_breaks") else len(rest)
        self.wfile.write(rest[:limit])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    Handler.asked = []
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.mark.parametrize("name", ["good", "breaks", "norange", "long"])
def test_the_right_file_comes_whole(server, tmp_path, name):
    told = []
    path = download([f"{server}/{name}"], tmp_path / "deep" / "file.bin", SHA1, lambda *facts: told.append(facts))
    assert path.read_bytes() == CONTENT
    assert told[-1][0] == len(CONTENT)
    assert len(Handler.asked) == {"breaks": 3, "long": 2}.get(name, 1)
    assert download([f"{server}/{name}"], path, SHA1) == path  # kept
    assert len(Handler.asked) == {"breaks": 3, "long": 2}.get(name, 1)


@pytest.mark.parametrize("size", [1, 1234])
def test_a_part_of_an_earlier_run_is_used(server, tmp_path, size):
    (tmp_path / "f.part").write_bytes(CONTENT[:size])
    told = []
    path = download([f"{server}/good"], tmp_path / "f", SHA1, lambda *facts: told.append(facts))
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert Handler.asked == [("/good", f"bytes={size}-")]


def test_a_part_stays_when_the_server_has_lost_the_file(server, tmp_path):
    (tmp_path / "f.part").write_bytes(CONTENT[:1234])
    with pytest.raises(FileError, match="the server answers 404"):
        download([f"{server}/missing"], tmp_path / "f", SHA1)
    assert len(Handler.asked) == 1
    assert (tmp_path / "f.part").read_bytes() == CONTENT[:1234]


def test_a_part_that_is_whole_already(server, tmp_path):
    (tmp_path / "f.part").write_bytes(CONTENT)
    assert download([f"{server}/good"], tmp_path / "f", SHA1).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("wrong", "returned another file: its sha1 is"),
        ("short", "returned another file: its sha1 is"),
        ("missing", "the server answers 404"),
    ],
)
def test_errors_name_the_fault(server, tmp_path, name, text):
    with pytest.raises(FileError, match=text) as caught:
        download([f"{server}/{name}"], tmp_path / "file.bin", SHA1)
    assert f'put it at "{tmp_path / "file.bin"}"' in str(caught.value)
    assert not (tmp_path / "file.bin").exists()


def test_the_next_mirror_is_asked(server, tmp_path):
    urls = ["http://127.0.0.1:9/none", f"{server}/wrong", f"{server}/short", f"{server}/good"]
    assert download(urls, tmp_path / "file.bin", SHA1).read_bytes() == CONTENT


def test_a_wrong_file_that_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "f").write_bytes(b"mine")
    with pytest.raises(FileError, match="is there, but its sha1 is not"):
        download(["http://127.0.0.1:9/none"], tmp_path / "f", SHA1)
    with pytest.raises(FileError, match="is not a checksum"):
        download([], tmp_path / "g", "12")


def test_where_downloads_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("CAFFE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("CAFFE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert str(cache_folder()) == "/x/caffe"
