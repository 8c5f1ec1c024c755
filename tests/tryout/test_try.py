"""`caffe try`: processing of uploads, responses of the server, and the page in a headless Chromium."""

from __future__ import annotations

import base64
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe.tryout
from caffe import models
from caffe.cli import main
from caffe.errors import DataError, FileError
from caffe.inside import grad_cam
from caffe.tryout import Explainer, read_upload, upload
from caffe.zoo import Predictor, index
from tests.monitor.browser import CHROMIUM, Browser
from tests.monitor.helpers import fetch

PAGE = Path(caffe.tryout.__file__).with_name("page")


def png(pixels) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def digit() -> np.ndarray:
    """The digit 1, light on dark."""
    pixels = np.zeros((28, 28, 3), np.uint8)
    cv2.line(pixels, (14, 4), (14, 23), (255, 255, 255), 3)
    return pixels


def turned(pixels) -> bytes:
    """A JPEG whose EXIF orientation is a rotation by 90 degrees."""
    data = cv2.imencode(".jpg", pixels)[1].tobytes()
    block = b"Exif\0\0" + struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x112, 3, 1, 6, 0, 0)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


def cmyk() -> bytes:
    import io

    file = io.BytesIO()
    pytest.importorskip("PIL.Image").new("CMYK", (12, 10), (0, 200, 200, 0)).save(file, "JPEG")
    return file.getvalue()


def huge() -> bytes:
    """A small PNG file whose header states 50,000 x 50,000 pixels."""
    head = struct.pack(">II5B", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the file is empty"),
        (b"hello", "is not a picture; give a JPEG"),
        (b"%PDF-1.7", "is a PDF"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "is a HEIC photograph"),
        (b"<svg xmlns='x'/>", "is an SVG drawing"),
        (png(digit())[:60], "is damaged"),
        (huge(), "has 50000 x 50000 pixels; at most 100,000,000"),
    ],
)
def test_what_is_no_picture_gets_one_clear_message(data, text):
    with pytest.raises(DataError, match=text):
        read_upload(data)


def test_a_file_that_is_too_large(monkeypatch):
    monkeypatch.setattr(upload, "LARGEST", 100)
    with pytest.raises(DataError, match="reduce its size"):
        read_upload(bytes(101))


def test_what_is_changed_is_told():
    assert read_upload(png(digit())).notes == []
    wide = np.zeros((8, 16, 3), np.uint8)
    found = read_upload(turned(wide))
    assert found.pixels.shape == (16, 8, 3)
    assert "rotated as the camera recorded" in found.notes[0]
    assert "CMYK" in read_upload(cmyk()).notes[0]
    clear = np.dstack([digit(), np.full((28, 28), 255, np.uint8)])
    assert read_upload(png(clear)).notes == []
    clear[3, 3, 3] = 0
    assert "transparency" in read_upload(png(clear)).notes[0]
    assert "16 bits a channel become 8" in read_upload(png(np.full((5, 5, 3), 999, np.uint16))).notes


@pytest.fixture(scope="module")
def lenet() -> Explainer:
    return Explainer.of_folder(index.find("lenet"))


def test_answers_are_those_of_classify_and_the_heat_lies_on_the_digit(lenet):
    pixels = digit()
    found = lenet.answer(pixels)
    np.testing.assert_allclose(found.probabilities, Predictor(index.find("lenet")).predict([pixels])[0], atol=1e-5)
    assert lenet.labels[found.target] == "1"
    assert found.method == "Grad-CAM"
    assert found.heat.max() == 1
    heat = grad_cam(lenet.probe, lenet.prepare(pixels), 1)
    np.testing.assert_allclose(found.heat, heat / heat.max(), atol=1e-6)
    np.testing.assert_array_equal(found.seen, pixels)
    assert lenet.answer(pixels, 7).target == 7


def test_a_net_without_maps_shows_saliency(tmp_path):
    net = models.lenet(batch=1, size=16)
    kept = [layer for layer in net.layer if layer.type in ("Input", "InnerProduct", "Softmax")]
    kept[1].bottom[:] = ["data"]
    kept[2].bottom[:] = kept[1].top
    flat = caffe.proto.caffe_pb2.NetParameter(layer=kept)
    (tmp_path / "flat.prototxt").write_text(str(flat))
    caffe.Net(flat, caffe.TEST).save(tmp_path / "w.caffemodel")
    files = (tmp_path / "flat.prototxt", tmp_path / "w.caffemodel")
    found = Explainer(*files, lambda pixels: pixels[None, :16, :16, 0].astype(np.float32)).answer(digit())
    assert found.method == "saliency"
    assert found.heat.shape == (16, 16)
    with pytest.raises(FileError, match="there are 3 labels, and the net has 10 classes"):
        Explainer(*files, lambda pixels: pixels, ["a", "b", "c"])


@contextmanager
def served(explainer):
    """The address of the page."""
    from caffe.tryout.server import server
    from caffe.web import address, listening

    listener = listening("127.0.0.1", 0)
    made = server(explainer)
    thread = threading.Thread(target=made.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until = time.monotonic() + 10
        while not made.started and time.monotonic() < until:
            time.sleep(0.01)
        yield address("127.0.0.1", listener)
    finally:
        made.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def site(lenet):
    pytest.importorskip("starlette", reason="needs the package starlette")
    pytest.importorskip("uvicorn", reason="needs the package uvicorn")
    with served(lenet) as url:
        yield url


def test_the_server_answers_pictures_and_refuses_others(site):
    found = fetch(f"{site}api/answer", png(digit()))
    assert found["classes"][0]["name"] == "1"
    assert sum(each["probability"] for each in found["classes"]) == pytest.approx(1, abs=1e-5)
    heat = cv2.imdecode(np.frombuffer(base64.b64decode(found["heat"].partition(",")[2]), np.uint8), -1)
    assert heat.shape == (476, 476, 4)
    assert fetch(f"{site}api/answer?class=3", png(digit()))["target"] == 3
    assert "class 99 does not exist" in fetch(f"{site}api/answer?class=99", png(digit()))["error"]
    assert 'class "x": expected the number' in fetch(f"{site}api/answer?class=x", png(digit()))["error"]
    assert "is not a picture" in fetch(f"{site}api/answer", b"hello")["error"]
    assert "too large" in fetch(f"{site}api/answer", bytes(upload.LARGEST + 1))["error"]
    assert "another site's page" in fetch(f"{site}api/answer", b"x", Origin="http://evil.example")["error"]
    assert b"Invalid host" in fetch(f"{site}api/model", Host="evil.example")
    assert [Path(path).name for path in fetch(f"{site}api/model")["files"]] == [
        "deploy.prototxt", "lenet.caffemodel", "labels.txt", "readme.md"
    ]  # fmt: skip


def test_the_page_names_no_other_place():
    for path in PAGE.iterdir():
        assert not re.findall(r"(?:https?:)?//[\w.-]+\.\w[^\s\"']*", path.read_text()), path.name


GIVE = """(async () => {{
  const data = Uint8Array.from(atob("{data}"), letter => letter.charCodeAt(0));
  const files = new DataTransfer();
  files.items.add(new File([data], "{name}"));
  document.dispatchEvent(new DragEvent("drop", {{dataTransfer: files, bubbles: true, cancelable: true}}));
}})()"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser chromium")
@pytest.mark.long
def test_a_picture_is_dropped_on_the_page(site, tmp_path):
    browser = Browser(tmp_path / "profile", 1000, 900)

    def give(data, name="a.png"):
        browser.value(GIVE.format(data=base64.b64encode(data).decode(), name=name))

    def text(name):
        return browser.value(f"document.getElementById('{name}').textContent")

    try:
        browser.open(site)
        browser.wait("document.getElementById('files').children.length === 4")
        give(png(digit()))
        browser.wait("document.getElementById('best').textContent.startsWith('1: ')")
        browser.wait("document.getElementById('heat').naturalWidth === 476")
        browser.value("document.querySelector('#classes button[data-number=\"7\"]').click()")
        browser.wait("document.getElementById('why').textContent.includes('7')")
        for data, told in ((b"hello", "bad.txt: the file is not a picture"), (huge(), "50000 x 50000 pixels")):
            give(data, "bad.txt")
            browser.wait(f"document.getElementById('notice').textContent.includes('{told}')")
            assert browser.value("document.getElementById('best').textContent").startswith("1: ")
        give(turned(np.zeros((8, 16, 3), np.uint8)), "b.jpg")
        browser.wait("document.getElementById('notes').textContent.includes('rotated as the camera recorded')")
        assert browser.value("document.getElementById('notice').hidden")
        assert browser.value("document.getElementById('strip').children.length") == 2
        for dark in (False, True):
            browser.dark(dark)
            browser.wait(f"document.documentElement.dataset.theme === '{'dark' if dark else 'light'}'")
            browser.picture(tmp_path / "page.png")
            corner = cv2.imread(str(tmp_path / "page.png"))[5, 5]
            assert (corner.mean() < 128) == dark
        assert all(each.startswith((site, "data:", "blob:", "about:")) for each in browser.requests)
        assert [each for each in browser.problems if "400 (Bad Request)" not in each] == []
    finally:
        browser.close()


@pytest.mark.long
def test_the_command_lists_the_files_tells_its_address_and_ends_with_ctrl_c():
    words = [sys.executable, "-m", "caffe", "try", "lenet", "-port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        lines = [process.stdout.readline() for _ in range(6)]
        assert [Path(line.strip()).name for line in lines[1:5]][:2] == ["deploy.prototxt", "lenet.caffemodel"]
        url = re.search(r"http://127\.0\.0\.1:\d+/", lines[5])[0]
        assert len(fetch(f"{url}api/model")["classes"]) == 10
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == ("The page has ended.\n", 0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing"], 'there is no model "nothing"'),
        (["lenet", "-labels", "x"], '"lenet" defines how pictures are prepared: remove -labels'),
        ([], "Need a classifier: name a project"),
        (["lenet", "-port", "70000"], "-port 70000: expected 0"),
        (["-model_def", "no.prototxt", "-pretrained_model", "x"], "no.prototxt"),
    ],
)
def test_what_cannot_be_tried_is_told(words, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["try", *words]) == 1
    assert told in capsys.readouterr().err


def test_a_net_by_flags_prepares_as_classify_does(tmp_path, capsys, monkeypatch):
    from types import SimpleNamespace

    from caffe.cli import try_
    from caffe.cli.command import find

    folder = index.find("lenet")
    names = {"model_def": str(folder.net), "pretrained_model": str(folder.weights), "raw_scale": "1"}
    flags = SimpleNamespace(**{flag.name: names.get(flag.name, flag.default) for flag in find("try").reads})
    flags.arguments, flags.labels = [], str(folder.path / "labels.txt")
    found = try_._explainer(flags)
    assert found.labels == folder.labels()
    cv2.imwrite(str(tmp_path / "a.png"), digit())
    words = [word for name, value in names.items() for word in (f"-{name}", value)]
    assert main(["classify", str(tmp_path / "a.png"), *words, "-center_only", "-images_dim", "28,28"]) == 0
    best = capsys.readouterr().out.splitlines()[1].split()
    assert f"{found.answer(digit()).probabilities.max():.4f}" == best[0]
